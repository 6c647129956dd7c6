// What a launch that is refused, or a violation, says.
#include <stdexcept>

#include "runtime.h"

namespace svmax_host {

std::string name_of(const char* kernel) {
  const std::string name = kernel;
  return name.front() == '(' && name.back() == ')' ? name.substr(1, name.size() - 2) : name;
}

std::string text(Where where) { return std::string(where.file_name()) + ":" + std::to_string(where.line()); }

std::string message(const char* kernel, int thread, const std::string& what, Where where) {
  return "kernel " + name_of(kernel) + ", block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) +
         ", " + std::to_string(blockIdx.z) + "), thread " + std::to_string(thread) + ": " + what + ", at " +
         text(where);
}

void check_launch(const char* kernel, Dim3 grid, int threads, int shared_bytes) {
  const auto refuse = [&](const std::string& what) {
    throw std::runtime_error("launch of kernel " + name_of(kernel) + ": " + what);
  };
  if (threads < kWarpSize || threads > kMostThreads || threads % kWarpSize != 0)
    refuse("a block must have whole warps, 32 to 1024 threads; got " + std::to_string(threads));
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 || grid.z > 65535)
    refuse("a grid must be at least 1, and at most 65535 in y and z; got (" + std::to_string(grid.x) + ", " +
           std::to_string(grid.y) + ", " + std::to_string(grid.z) + ")");
  if (shared_bytes < 0 || shared_bytes > kMostSharedBytes)
    refuse("a block has at most " + std::to_string(kMostSharedBytes) + " bytes of shared memory; got " +
           std::to_string(shared_bytes));
}

}  // namespace svmax_host
