// One vector register of the instruction set this file is compiled for, in the compiler's vector extension.
//
// The stage headers are compiled once for each instruction set (kernels.cpp), into a namespace of its own: two copies
// of one inline function compiled for different instruction sets must never be merged by the linker. For the same
// reason the stage headers use no containers or algorithms of the standard library.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifndef SVMAX_ISA
#error "define SVMAX_ISA: the instruction set's name, which is also the namespace"
#endif

// For what only pays when its operands stay in registers: a compiler that counts instructions would rather call it.
#define SVMAX_INLINE inline __attribute__((always_inline))

namespace svmax::SVMAX_ISA {

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
constexpr int kTileRows = 8;  // 8 x 2 accumulators, 2 vectors of B: 18 of 32 registers, broadcasts from memory
#elif defined(__AVX__)
constexpr int64_t kVectorBytes = 32;
constexpr int kTileRows = 4;  // 4 x 2 accumulators, 2 vectors of B, 1 broadcast: 11 of 16 registers
#else
constexpr int64_t kVectorBytes = 16;
constexpr int kTileRows = 4;
#endif

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;
template <typename T>
constexpr int64_t kLanes = kVectorBytes / int64_t(sizeof(T));

template <typename T>
SVMAX_INLINE Vector<T> load(const T* p) {
  Vector<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename T>
SVMAX_INLINE void store(T* p, Vector<T> v) {
  std::memcpy(p, &v, sizeof v);
}

// The float64 lanes of v as T.
template <typename T>
SVMAX_INLINE void store_as(T* p, Vector<double> v) {
  typedef T Lanes __attribute__((vector_size(kLanes<double> * sizeof(T))));
  const Lanes lanes = __builtin_convertvector(v, Lanes);
  std::memcpy(p, &lanes, sizeof lanes);
}

template <typename T>
SVMAX_INLINE Vector<T> splat(T x) {
  Vector<T> v;
  for (int64_t i = 0; i < kLanes<T>; ++i) v[i] = x;
  return v;
}

// The sum of the lanes, in a fixed order (pairwise).
template <typename T>
SVMAX_INLINE T sum_lanes(Vector<T> v) {
  T lane[kLanes<T>];
  std::memcpy(lane, &v, sizeof v);
  for (int64_t width = kLanes<T> / 2; width > 0; width /= 2)
    for (int64_t i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}

#if defined(__clang__)
#define SVMAX_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SVMAX_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, VectorOf<int64_t>::type{__VA_ARGS__})
#endif

// The sums of the lanes of as many float64 vectors as one has lanes, as a vector: adds while it transposes, a third of
// the instructions of single sums.
SVMAX_INLINE Vector<double> lane_sums(const Vector<double> (&rows)[kLanes<double>]) {
#if defined(__AVX512F__)
  Vector<double> pairs[4], fours[2];
  for (int r = 0; r < 4; ++r)
    pairs[r] = SVMAX_SHUFFLE(rows[2 * r], rows[2 * r + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
               SVMAX_SHUFFLE(rows[2 * r], rows[2 * r + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  for (int r = 0; r < 2; ++r)
    fours[r] = SVMAX_SHUFFLE(pairs[2 * r], pairs[2 * r + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               SVMAX_SHUFFLE(pairs[2 * r], pairs[2 * r + 1], 2, 3, 10, 11, 6, 7, 14, 15);
  return SVMAX_SHUFFLE(fours[0], fours[1], 0, 1, 2, 3, 8, 9, 10, 11) +
         SVMAX_SHUFFLE(fours[0], fours[1], 4, 5, 6, 7, 12, 13, 14, 15);
#elif defined(__AVX__)
  Vector<double> pairs[2];
  for (int r = 0; r < 2; ++r)
    pairs[r] = SVMAX_SHUFFLE(rows[2 * r], rows[2 * r + 1], 0, 4, 2, 6) +
               SVMAX_SHUFFLE(rows[2 * r], rows[2 * r + 1], 1, 5, 3, 7);
  return SVMAX_SHUFFLE(pairs[0], pairs[1], 0, 1, 4, 5) + SVMAX_SHUFFLE(pairs[0], pairs[1], 2, 3, 6, 7);
#else
  return SVMAX_SHUFFLE(rows[0], rows[1], 0, 2) + SVMAX_SHUFFLE(rows[0], rows[1], 1, 3);
#endif
}

template <typename T>
SVMAX_INLINE T dot(const T* x, const T* y, int64_t count) {
  constexpr int64_t L = kLanes<T>;
  Vector<T> sum0 = splat(T(0)), sum1 = sum0;
  int64_t i = 0;
  for (; i + 2 * L <= count; i += 2 * L) {
    sum0 += load(x + i) * load(y + i);
    sum1 += load(x + i + L) * load(y + i + L);
  }
  for (; i + L <= count; i += L) sum0 += load(x + i) * load(y + i);
  T sum = sum_lanes<T>(sum0 + sum1);
  for (; i < count; ++i) sum += x[i] * y[i];
  return sum;
}

inline constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
inline constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Leading dimension of an n-column matrix in scratch memory: whole vectors, and an odd number of cache lines, so that
// the rows of a column block do not all fall into the same few sets of the cache.
template <typename T>
inline int64_t leading_dimension(int64_t n) {
  constexpr int64_t line = 64 / int64_t(sizeof(T));
  const int64_t lines = round_up(n, line) / line;
  return (lines | 1) * line;
}

// Scratch memory that grows and is used again for the next matrix of the batch; never initialised.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  T* reserve(int64_t count) {
    if (count > capacity_) {
      std::free(data_);
      capacity_ = 0;
      data_ = static_cast<T*>(std::aligned_alloc(64, round_up(count * int64_t(sizeof(T)), 64)));
      if (data_ == nullptr) throw std::bad_alloc();
      capacity_ = count;
    }
    return data_;
  }
  int64_t bytes() const { return capacity_ * int64_t(sizeof(T)); }

 private:
  T* data_ = nullptr;
  int64_t capacity_ = 0;
};

}  // namespace svmax::SVMAX_ISA
