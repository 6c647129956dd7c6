// Shared<T> and Global<T>: pointers that know what they may point to. Every access is checked and counted.
#pragma once
#include <bit>
#include <cstddef>
#include <cstring>

#include "counted.h"
#include "shared_state.h"

namespace svmax::cuda {

// An index, and the line that it was written in: operator[] cannot have a default argument of its own.
struct Index {
  int64_t value;
  svmax_host::Where where;
  Index(int64_t i, svmax_host::Where at = svmax_host::Where::current()) : value(i), where(at) {}
};

// A place in the block's shared memory, in bytes from its start, and the piece of it that the pointer was made for.
struct SharedPlace {
  int64_t at = 0;
  int begin = 0, end = 0;

  SharedPlace moved(int64_t bytes) const { return {at + bytes, begin, end}; }
  template <typename T>
  void check(svmax_host::Where where) const {
    const int64_t last = at + int64_t(sizeof(T));
    if (at < begin || last > end || last > svmax_host::shared_bytes || at % int64_t(alignof(T)) != 0) [[unlikely]]
      refuse(int(sizeof(T)), where);
  }
  template <typename T>
  T read(svmax_host::Where where) const {
    check<T>(where);
    svmax_host::shared_read(int(at), int(sizeof(T)), where);
    T value;
    std::memcpy(&value, svmax_host::shared_memory + at, sizeof(T));
    return value;
  }
  template <typename T>
  void write(const T& value, svmax_host::Where where) const {
    check<T>(where);
    svmax_host::shared_write(int(at), int(sizeof(T)), where);
    std::memcpy(svmax_host::shared_memory + at, &value, sizeof(T));
  }

 private:
  [[noreturn, gnu::cold, gnu::noinline]] void refuse(int bytes, svmax_host::Where where) const {
    using std::to_string;
    const int64_t last = at + bytes;
    if (at < begin || last > end)
      svmax_host::violation("shared memory out of range: bytes " + to_string(at - begin) + " to " +
                                to_string(last - begin) + " of a piece of " + to_string(end - begin),
                            where);
    if (last > svmax_host::shared_bytes)
      svmax_host::violation("shared memory out of range: the launch has " + to_string(svmax_host::shared_bytes) +
                                " bytes, this piece ends at " + to_string(end),
                            where);
    svmax_host::violation("misaligned shared memory: byte " + to_string(at) + " for an access of " + to_string(bytes),
                          where);
  }
};

}  // namespace svmax::cuda

namespace svmax_host {

// New memory is filled with this, a NaN that no arithmetic makes; a kernel that reads it reads what nobody wrote.
constexpr uint64_t kNeverWritten = 0x7ff8'dead'0bad'f00d;

inline void never_written(double* memory, int64_t count) {
  for (int64_t i = 0; i < count; ++i) memory[i] = std::bit_cast<double>(kNeverWritten);
}

}  // namespace svmax_host

namespace svmax::cuda {

// A place in global memory, and the tensor's storage around it.
struct GlobalPlace {
  char *at = nullptr, *begin = nullptr, *end = nullptr;

  GlobalPlace moved(int64_t bytes) const { return {at + bytes, begin, end}; }
  template <typename T>
  void check(svmax_host::Where where) const {
    if (begin == nullptr || at < begin || at + sizeof(T) > end || reinterpret_cast<uintptr_t>(at) % alignof(T) != 0)
        [[unlikely]]
      refuse(int(sizeof(T)), where);
  }
  template <typename T>
  T read(svmax_host::Where where) const {
    check<T>(where);
    svmax_host::last_access = where;
    svmax_host::count(&svmax_host::Counters::global_read_bytes, sizeof(T));
    if constexpr (sizeof(T) % sizeof(double) == 0) {
      uint64_t words[sizeof(T) / sizeof(double)];
      std::memcpy(words, at, sizeof(T));
      for (const uint64_t word : words)
        if (word == svmax_host::kNeverWritten) [[unlikely]]
          svmax_host::violation("read of global memory that was never written", where);
    }
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
  }
  template <typename T>
  void write(const T& value, svmax_host::Where where) const {
    check<T>(where);
    svmax_host::last_access = where;
    svmax_host::count(&svmax_host::Counters::global_write_bytes, sizeof(T));
    std::memcpy(at, &value, sizeof(T));
  }

 private:
  [[noreturn, gnu::cold, gnu::noinline]] void refuse(int bytes, svmax_host::Where where) const {
    using std::to_string;
    if (begin == nullptr) svmax_host::violation("access through a null pointer to global memory", where);
    if (at < begin || at + bytes > end)
      svmax_host::violation(
          "global memory out of range: byte " + to_string(at - begin) + " of a tensor of " + to_string(end - begin),
          where);
    svmax_host::violation("misaligned global memory: byte " + to_string(at - begin) + " of a tensor at " +
                              to_string(reinterpret_cast<uintptr_t>(begin)) + ", for an access of " + to_string(bytes),
                          where);
  }
};

// One element: read where its value is taken, written where it is assigned to.
template <typename T, typename Place>
class Element {
 public:
  using Value = std::remove_const_t<T>;

  Element(const Place& place, svmax_host::Where where) : place_(place), where_(where) {}
  Element(const Element&) = default;

  operator Value() const { return place_.template read<Value>(where_); }
  explicit operator double() const
    requires std::same_as<Value, f64> || std::same_as<Value, f32>
  {
    return double(Value(*this));
  }
  // The value, as further assignments take it: no second read.
  Value operator=(const Value& value) const
    requires(!std::is_const_v<T>)
  {
    place_.template write<Value>(value, where_);
    return value;
  }
  Value operator=(const Element& other) const { return *this = Value(other); }
  Value operator+=(const Value& value) const { return *this = Value(*this) + value; }
  Value operator-=(const Value& value) const { return *this = Value(*this) - value; }
  Value operator*=(const Value& value) const { return *this = Value(*this) * value; }
  Value operator/=(const Value& value) const { return *this = Value(*this) / value; }

 private:
  Place place_;
  svmax_host::Where where_;
};

template <typename T, typename Place>
class Pointer {
 public:
  Pointer() = default;
  Pointer(std::nullptr_t) {}
  explicit Pointer(const Place& place) : place_(place) {}
  // T points into begin to end.
  Pointer(T* at, const void* begin, const void* end)
    requires std::same_as<Place, GlobalPlace>
      : place_{bytes(at), bytes(begin), bytes(end)} {}
  template <typename U>
    requires(std::same_as<const U, T> && !std::same_as<U, T>)
  Pointer(const Pointer<U, Place>& other) : place_(other.place()) {}

  const Place& place() const { return place_; }
  Element<T, Place> operator[](const Index& i) const { return {place_.moved(i.value * int64_t(sizeof(T))), i.where}; }
  Pointer operator+(int64_t count) const { return Pointer(place_.moved(count * int64_t(sizeof(T)))); }
  friend bool operator==(const Pointer& p, std::nullptr_t) { return p.place_.end == Place{}.end; }

 private:
  static char* bytes(const void* p) { return static_cast<char*>(const_cast<void*>(p)); }
  Place place_;
};

template <typename T>
using Shared = Pointer<T, SharedPlace>;  // of this block's dynamic shared memory
template <typename T>
using Global = Pointer<T, GlobalPlace>;

// Two neighbours in one access, which must be aligned to 16 bytes.
struct alignas(16) Pair {
  f64 x, y;
};
template <typename T, typename Place>
  requires std::same_as<std::remove_const_t<T>, f64>
inline Pair load2(const Pointer<T, Place>& from, svmax_host::Where where = svmax_host::Where::current()) {
  return from.place().template read<Pair>(where);
}
template <typename Place>
inline void store2(const Pointer<f64, Place>& to, Pair value, svmax_host::Where where = svmax_host::Where::current()) {
  to.place().template write<Pair>(value, where);
}

}  // namespace svmax::cuda
