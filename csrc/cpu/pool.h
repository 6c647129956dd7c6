// The thread pool a stage may use, without knowing whose it is: cpu.cpp hands over torch's own.
#pragma once
#include <cstdint>

namespace svmax {

struct Pool {
  using Body = void (*)(int64_t begin, int64_t end, void* context);

  void (*run)(int64_t count, int64_t grain, Body body, void* context);
  int64_t threads;  // 1: everything runs in the calling thread

  // f(begin, end) over [0, count), at least `grain` items a thread. Which thread takes which items must not change
  // the result: every item writes its own memory, and sums have a fixed order.
  template <typename F>
  void each(int64_t count, int64_t grain, const F& f) const {
    if (threads <= 1 || count <= grain) {
      if (count > 0) f(int64_t(0), count);
      return;
    }
    run(
        count, grain, [](int64_t begin, int64_t end, void* context) { (*static_cast<const F*>(context))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }
};

}  // namespace svmax
