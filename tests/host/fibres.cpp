// Runs the threads of a block as fibres of one OS thread: a switch is a few instructions, so that a shuffle costs each
// lane one of them. Lanes of a warp run in turn until all wait; every rule of barriers and shuffles is checked when a
// thread arrives at one, or ends.
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <mutex>
#include <stdexcept>
#include <system_error>

#include "report.h"
#include "shared_state.h"

#ifndef __x86_64__
#define SVMAX_HOST_UCONTEXT 1  // slower; nothing for the processor
#endif
#ifdef SVMAX_HOST_UCONTEXT
#include <ucontext.h>
#endif

namespace svmax_host {
namespace {

constexpr size_t kStackBytes = 64 << 10;

#ifdef SVMAX_HOST_UCONTEXT

using Context = ucontext_t;
void prepare(Context& context, char* stack, size_t size, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = size;
  makecontext(&context, entry, 0);
}
void change(Context& from, Context& to) { swapcontext(&from, &to); }

#else

using Context = void*;  // the stack pointer; what a call preserves lies on the stack
extern "C" void svmax_host_switch(Context* from, Context to);
asm(R"(
.text
.local svmax_host_switch
svmax_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
)");
void prepare(Context& context, char* stack, size_t size, void (*entry)()) {
  // Six registers, where to go on, and so that the stack is aligned there as after a call.
  void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(stack + size) & ~uintptr_t(15)) - 64);
  std::fill_n(top, 6, nullptr);
  top[6] = reinterpret_cast<void*>(entry);
  context = top;
}
void change(Context& from, Context& to) { svmax_host_switch(&from, to); }

#endif

// Stacks for all threads of a block, each above a page that ends the process if it is touched.
class Stacks {
 public:
  Stacks() : page_(size_t(sysconf(_SC_PAGESIZE))) {
    void* memory = mmap(nullptr, kMostThreads * (kStackBytes + page_), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "stacks of the emulator");
    memory_ = static_cast<char*>(memory);
    for (int i = 0; i < kMostThreads; ++i) mprotect(memory_ + size_t(i) * (kStackBytes + page_), page_, PROT_NONE);
  }
  char* stack(int i) const { return memory_ + size_t(i) * (kStackBytes + page_) + page_; }
  // Tops at different places of the page: at the same one they would all want the same lines of the cache.
  size_t size(int i) const { return kStackBytes - size_t(i % kWarpSize) * 832; }

 private:
  size_t page_;
  char* memory_;
};

enum class Operation { None, Sync, ShuffleF64, ShuffleF32, ShuffleInt };
constexpr Operation kShuffles[] = {Operation::ShuffleF64, Operation::ShuffleF32, Operation::ShuffleInt};

struct Lane {
  Operation operation;
  unsigned mask;
  Where where;
  int source;
  uint64_t value, received;
};

struct Warp {
  unsigned runnable, waiting, at_barrier, exited;  // each lane is in one of them
  Lane lanes[kWarpSize];
};

struct Block {
  const char* kernel;
  int threads;
  void (*thread)(const void*);
  const void* data;

  unsigned ready;  // warps with runnable lanes
  int arrived, exited;
  int first_arrived, last_exited;
  Where barrier;
  bool all, result;  // of the votes

  std::string failure;
};

std::mutex running;
Block block;
Warp warps[kMostThreads / kWarpSize];
Context main_context, contexts[kMostThreads];
Where accesses[kMostThreads];

void go_on_with(int thread, Context& from) {
  threadIdx.x = thread;
  last_access = accesses[thread];
  change(from, contexts[thread]);
}

// The thread that runs has to wait: another one goes on.
void leave() {
  const int self = threadIdx.x;
  int warp = self / kWarpSize;
  if (warps[warp].runnable == 0) {
    block.ready &= ~(1u << warp);
    if (block.ready == 0) violation("every thread waits for another one", Where::current());
    warp = std::countr_zero(block.ready);
  }
  accesses[self] = last_access;
  go_on_with(warp * kWarpSize + std::countr_zero(warps[warp].runnable), contexts[self]);
}

std::string lane_text(int warp, int lane) { return "thread " + std::to_string(warp * kWarpSize + lane); }

// A thread of this warp is about to wait at a barrier, or has ended: none of its lanes may wait for that one.
void check_not_awaited(const Warp& warp, int lane, const char* what) {
  for (unsigned left = warp.waiting; left != 0; left &= left - 1) {
    const int other = std::countr_zero(left);
    if (warp.lanes[other].mask >> lane & 1)
      violation(std::string(what) + " while " + lane_text(threadIdx.x / kWarpSize, other) + " waits for it",
                warp.lanes[other].where);
  }
}

const char* name(Operation operation) { return operation == Operation::Sync ? "__syncwarp" : "shuffle"; }

void check_arrival(const Warp& warp, int self, int index) {
  const Lane& mine = warp.lanes[self];
  const std::string_view what = name(mine.operation);
  if (!(mine.mask >> self & 1)) violation(std::string(what) + " by a lane that its mask does not name", mine.where);
  if (const unsigned gone = mine.mask & warp.exited; gone != 0)
    violation(std::string(what) + " with an inactive lane: " + lane_text(index, std::countr_zero(gone)) + " has ended",
              mine.where);
  if (const unsigned away = mine.mask & warp.at_barrier; away != 0)
    violation(std::string(what) + " with an inactive lane: " + lane_text(index, std::countr_zero(away)) + " waits at " +
                  text(block.barrier),
              mine.where);
  for (unsigned left = warp.waiting; left != 0; left &= left - 1) {
    const int other = std::countr_zero(left);
    const Lane& theirs = warp.lanes[other];
    if (!(mine.mask >> other & 1) && !(theirs.mask >> self & 1)) continue;
    if (mine.mask != theirs.mask)
      violation(
          std::string(what) + " with another mask than " + lane_text(index, other) + " gives at " + text(theirs.where),
          mine.where);
    if (mine.operation != theirs.operation || !same(mine.where, theirs.where))
      violation("divergent " + std::string(what) + ": " + lane_text(index, other) + " waits at " + text(theirs.where),
                mine.where);
  }
}

// Waits for all lanes of the mask; the last one does what they came for.
Lane& meet(Operation operation, unsigned mask, uint64_t value, int source, Where where) {
  const int index = threadIdx.x / kWarpSize, self = threadIdx.x % kWarpSize;
  Warp& warp = warps[index];
  Lane& mine = warp.lanes[self];
  mine.operation = operation;
  mine.mask = mask;
  mine.where = where;
  mine.source = source & (kWarpSize - 1);
  mine.value = value;
  // The usual case in short: all lanes are there, and came for the same thing as the first who waits.
  const Lane& first = warp.lanes[std::countr_zero(warp.waiting | 1u << 31)];
  if (mask != ~0u || (warp.exited | warp.at_barrier) != 0 ||
      (warp.waiting != 0 && (first.mask != mask || first.operation != operation || !same(first.where, where))))
    check_arrival(warp, self, index);
  const unsigned bit = 1u << self;
  warp.runnable &= ~bit;
  warp.waiting |= bit;
  if ((warp.waiting & mask) != mask) {
    leave();
    return mine;
  }
  if (operation == Operation::Sync) {
    shared_state.sync_warp(index, mask);
    count(&Counters::syncwarps);
  } else {
    for (unsigned left = mask; left != 0; left &= left - 1) {
      Lane& lane = warp.lanes[std::countr_zero(left)];
      if (!(mask >> lane.source & 1)) {
        threadIdx.x = index * kWarpSize + std::countr_zero(left);
        violation("shuffle from an inactive lane: " + lane_text(index, lane.source) + " is not in the mask", where);
      }
      lane.received = warp.lanes[lane.source].value;
    }
    count(&Counters::shuffles, operation == Operation::ShuffleF64 ? 2 : 1);
  }
  bank_counter.flush(index, mask);
  warp.waiting &= ~mask;
  warp.runnable |= mask;
  return mine;
}

void end_thread() {
  const int index = threadIdx.x / kWarpSize, self = threadIdx.x % kWarpSize;
  Warp& warp = warps[index];
  if (block.arrived > 0)
    violation("the thread has ended while thread " + std::to_string(block.first_arrived) + " waits for it",
              block.barrier);
  check_not_awaited(warp, self, "the thread has ended");
  warp.runnable &= ~(1u << self);
  warp.exited |= 1u << self;
  block.last_exited = threadIdx.x;
  if (warp.exited == ~0u) bank_counter.flush(index, ~0u);
  if (++block.exited == block.threads) change(contexts[threadIdx.x], main_context);
  leave();
}

void enter() {
  block.thread(block.data);
  end_thread();
}

void run_block() {
  shared_state.begin_block(block.threads / kWarpSize);
  block.arrived = block.exited = 0;
  block.all = true;
  block.ready = unsigned((uint64_t(1) << block.threads / kWarpSize) - 1);
  for (int i = 0; i < block.threads / kWarpSize; ++i) {
    warps[i].runnable = ~0u;
    warps[i].waiting = warps[i].at_barrier = warps[i].exited = 0;
    bank_counter.forget(i);
  }
  static const Stacks stacks;
  for (int i = 0; i < block.threads; ++i) {
    prepare(contexts[i], stacks.stack(i), stacks.size(i), enter);
    accesses[i] = Where{};
  }
  go_on_with(0, main_context);
}

}  // namespace

void violation(const std::string& what, Where where) {
  block.failure = message(block.kernel, threadIdx.x, what, where);
  if (last_access.line() != 0 && !same(last_access, where))
    block.failure += " (its last access to memory: " + text(last_access) + ")";
  // The fibres are left as they are; nothing in a kernel needs a destructor.
  change(contexts[threadIdx.x], main_context);
  __builtin_unreachable();
}

bool barrier(bool value, Where where) {
  const int index = threadIdx.x / kWarpSize, self = threadIdx.x % kWarpSize;
  Warp& warp = warps[index];
  if (block.exited > 0) violation("barrier after thread " + std::to_string(block.last_exited) + " has ended", where);
  if (block.arrived == 0) {
    block.barrier = where;
    block.first_arrived = threadIdx.x;
  } else if (!same(where, block.barrier)) {
    violation("divergent barrier: thread " + std::to_string(block.first_arrived) + " waits at " + text(block.barrier),
              where);
  }
  check_not_awaited(warp, self, ("barrier at " + text(where)).c_str());
  block.all = block.all && value;
  warp.runnable &= ~(1u << self);
  warp.at_barrier |= 1u << self;
  if (warp.at_barrier == ~0u) bank_counter.flush(index, ~0u);
  if (++block.arrived < block.threads) {
    leave();
    return block.result;
  }
  shared_state.barrier();
  count(&Counters::barriers);
  block.result = block.all;
  block.all = true;
  block.arrived = 0;
  for (int i = 0; i < block.threads / kWarpSize; ++i) {
    warps[i].at_barrier = 0;
    warps[i].runnable = ~0u;
    block.ready |= 1u << i;
  }
  return block.result;
}

void sync_warp(unsigned mask, Where where) { meet(Operation::Sync, mask, 0, 0, where); }

uint64_t shuffle(unsigned mask, Type type, uint64_t value, int source, Where where) {
  return meet(kShuffles[int(type)], mask, value, source, where).received;
}

void run(const char* kernel, Dim3 grid, int threads, int bytes, void (*thread)(const void*), const void* data) {
  check_launch(kernel, grid, threads, bytes);
  const std::lock_guard lock(running);
  block.kernel = kernel;
  block.threads = threads;
  block.thread = thread;
  block.data = data;
  block.failure.clear();
  gridDim = grid;
  blockDim.x = threads;
  shared_bytes = bytes;
  Launch launch{name_of(kernel), grid, threads, bytes};
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        counters = {};
        run_block();
        if (!block.failure.empty()) throw std::runtime_error(block.failure);
        launch.add(counters);
      }
    }
  }
  ++launched;
  if (counting) launches.push_back(launch);
}

}  // namespace svmax_host
