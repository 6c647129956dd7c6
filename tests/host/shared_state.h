// What is known of every word of the block's shared memory: who wrote it last, who has read it since, and whether a
// barrier lies between. So a race is found whatever the order in which the emulator happens to run the threads.
#pragma once
#include <vector>

#include "runtime.h"

namespace svmax_host {

constexpr int kWordBytes = 4;

inline SVMAX_OF_THREAD Where last_access;  // of the thread that runs: says where it was when a barrier goes wrong

#ifdef SVMAX_HOST_THREADS

inline void shared_read(int, int, Where) {}  // ThreadSanitizer looks after these
inline void shared_write(int, int, Where) {}

#else

// Which accesses of a warp's lanes another lane's are ordered after: by __syncwarp, a vector clock. A shuffle orders
// nothing, in CUDA's memory model neither.
class WarpClock {
 public:
  uint32_t now = 1;
  bool knows(int lane, int other, uint32_t time) const {
    return time < all_ || (partly_ && time < known_[lane][other]);
  }
  void sync(unsigned mask);
  void reset() { *this = WarpClock{}; }

 private:
  uint32_t all_ = 1;                           // what came before is ordered for every lane
  bool partly_ = false;                        // and for some, more
  uint32_t known_[kWarpSize][kWarpSize] = {};  // [lane][other]
};

struct Word {
  struct Access {
    Where where;
    uint32_t time;
    int thread;
  };
  uint32_t write_epoch = 0, read_epoch = 0;
  bool two_warps = false;  // have read it since: then a write by anyone races with one of `readers`
  Access writer, readers[2];
};

class SharedState {
 public:
  SharedState() : words_(kMostSharedBytes / kWordBytes) {}

  void begin_block(int warps);
  void barrier() { ++epoch_; }
  void sync_warp(int warp, unsigned mask) { clocks_[warp].sync(mask); }

  void read(Word& word, Where where) {
    if (word.write_epoch < first_epoch_) never_written(where);
    const int thread = threadIdx.x;
    if (word.write_epoch == epoch_ && unordered(word.writer, thread)) race("read", "written", word.writer, where);
    if (word.read_epoch == epoch_ && word.two_warps) return;
    const Word::Access access{where, clocks_[thread / kWarpSize].now, thread};
    Word::Access &first = word.readers[0], &second = word.readers[1];
    if (word.read_epoch != epoch_) {
      word.read_epoch = epoch_;
      first = second = access;
    } else if (thread / kWarpSize != first.thread / kWarpSize) {
      second = access;
      word.two_warps = true;
    } else if (first.time != access.time) {  // earlier reads of this warp matter to no one any more
      first = second = access;
    } else if (thread != first.thread) {
      second = access;
    }
  }
  void write(Word& word, Where where) {
    const int thread = threadIdx.x;
    if (word.write_epoch == epoch_ && unordered(word.writer, thread)) race("write", "written", word.writer, where);
    if (word.read_epoch == epoch_)
      for (const Word::Access& reader : word.readers)
        if (unordered(reader, thread)) race("write", "read", reader, where);
    word.write_epoch = epoch_;
    word.writer = {where, clocks_[thread / kWarpSize].now, thread};
    word.read_epoch = 0;
    word.two_warps = false;
  }
  Word& word(int index) { return words_[size_t(index)]; }

 private:
  // An access since the block's last barrier.
  bool unordered(const Word::Access& before, int thread) const {
    if (before.thread == thread) return false;
    if (before.thread / kWarpSize != thread / kWarpSize) return true;
    return !clocks_[thread / kWarpSize].knows(thread % kWarpSize, before.thread % kWarpSize, before.time);
  }
  [[noreturn]] void never_written(Where where) const;
  [[noreturn]] void race(const char* now, const char* then, const Word::Access& before, Where where) const;

  std::vector<Word> words_;
  // Epochs go on from block to block, so that a word of an earlier block is one that this block never wrote.
  uint32_t epoch_ = 1, first_epoch_ = 1;
  WarpClock clocks_[kMostThreads / kWarpSize];
};
inline SharedState shared_state;

// Which accesses of a warp's lanes are one instruction, and how many wavefronts of 128 bytes it takes.
class BankCounter {
 public:
  struct Access {
    Where where;
    int byte;
    int16_t bytes;
    bool writes;
  };
  void log(Access access) { lanes_[threadIdx.x].push_back(access); }
  // The lanes of `mask` have come to where they wait for each other.
  void flush(int warp, unsigned mask);
  void forget(int warp) {  // what a launch that failed has left
    for (int i = 0; i < kWarpSize; ++i) lanes_[warp * kWarpSize + i].clear();
  }

 private:
  std::vector<Access> lanes_[kMostThreads];
};
inline BankCounter bank_counter;

inline void shared_read(int byte, int bytes, Where where) {
  last_access = where;
  for (int i = byte / kWordBytes; i < (byte + bytes) / kWordBytes; ++i) shared_state.read(shared_state.word(i), where);
  count(&Counters::shared_read_bytes, bytes);
  if (counting) bank_counter.log({where, byte, int16_t(bytes), false});
}
inline void shared_write(int byte, int bytes, Where where) {
  last_access = where;
  for (int i = byte / kWordBytes; i < (byte + bytes) / kWordBytes; ++i) shared_state.write(shared_state.word(i), where);
  count(&Counters::shared_write_bytes, bytes);
  if (counting) bank_counter.log({where, byte, int16_t(bytes), true});
}

#endif

}  // namespace svmax_host
