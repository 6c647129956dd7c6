// What runs a kernel on the host, and what it counts: one block after another, its threads as fibres (fibres.cpp) or,
// for ThreadSanitizer, as OS threads (threads.cpp).
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>
#include <type_traits>

#ifdef SVMAX_HOST_THREADS
#define SVMAX_OF_THREAD thread_local
#else
#define SVMAX_OF_THREAD  // a switch of fibres sets it
#endif

namespace svmax_host {

using Where = std::source_location;

struct Dim3 {
  int x = 1, y = 1, z = 1;
};
struct Dim1 {
  int x;
};

inline SVMAX_OF_THREAD Dim1 threadIdx;
inline Dim3 blockIdx, gridDim;
inline Dim1 blockDim;

constexpr int kWarpSize = 32;
constexpr int kMostThreads = 1024;
constexpr int kMostSharedBytes = 227 << 10;  // of a block of sm_90 and sm_100

alignas(128) inline unsigned char shared_memory[kMostSharedBytes];
inline int shared_bytes;  // of the launch

// ---- what is counted of a block

// By the thread. Signs and absolute values cost nothing on a GPU and are not counted.
struct Operations {
  int64_t add, mul, fma, div, sqrt, other, compare, convert;  // other: exp, ldexp, frexp
};
struct Counters {
  int64_t barriers, syncwarps, shuffles;  // the last two by the warp; a shuffle of 64 bits is two
  Operations f64, f32;
  int64_t shared_read_bytes, shared_write_bytes;  // by the thread
  int64_t shared_wavefronts, bank_conflicts;      // by the warp, of 128 bytes; those beyond the fewest possible
  int64_t global_read_bytes, global_write_bytes;  // by the thread
};
inline Counters counters;
inline bool counting = false;  // of wavefronts and launches, which takes time and memory; the rest is always counted

#ifdef SVMAX_HOST_THREADS
inline void count(int64_t Counters::*, int64_t = 1) {}  // threads would race for it
inline void count(Operations Counters::*, int64_t Operations::*) {}
#else
inline void count(int64_t Counters::* counter, int64_t amount = 1) { counters.*counter += amount; }
inline void count(Operations Counters::* type, int64_t Operations::* operation) { ++(counters.*type.*operation); }
#endif

// ---- what a kernel calls

// Ends the launch: `what` arrives with kernel, block, thread and line as a std::runtime_error.
[[noreturn]] void violation(const std::string& what, Where where);

void barrier(Where where);
void sync_warp(unsigned mask, Where where);
enum class Type { F64, F32, Int };
// -> the value that lane `source` of the warp gave.
uint64_t shuffle(unsigned mask, Type type, uint64_t value, int source, Where where);

std::string text(Where where);  // file:line
inline bool same(Where a, Where b) {
  return std::bit_cast<const void*>(a) == std::bit_cast<const void*>(b) ||  // the usual case, and fast
         (a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0);
}

// ---- what the host calls

void run(const char* kernel, Dim3 grid, int threads, int shared_bytes, void (*thread)(const void*), const void* data);

// kernel<<<grid, threads, shared_bytes>>>(arguments...), done when it returns.
// Raises std::runtime_error at the first violation.
template <typename... Parameters>
void launch(const char* name, void (*kernel)(Parameters...), Dim3 grid, int threads, int shared_bytes,
            std::type_identity_t<Parameters>... arguments) {
  const auto thread = [&] { kernel(arguments...); };
  const auto call = [](const void* f) { (*static_cast<const decltype(thread)*>(f))(); };
  run(name, grid, threads, shared_bytes, call, &thread);
}

// Shared by both ways of running: refuses what a GPU refuses to launch.
void check_launch(const char* kernel, Dim3 grid, int threads, int shared_bytes);
std::string message(const char* kernel, int thread, const std::string& what, Where where);
std::string name_of(const char* kernel);  // without the parentheses that a macro's argument may need

}  // namespace svmax_host
