// As much of CUDA as the kernels use, on the CPU: a kernel's source compiles as C++ and runs here, so that its answers
// can be tested where there is no GPU. The threads of a block are fibres of one thread of the system, which take turns
// at every barrier; blocks run one after another. Slow, and exact: nothing is reordered that a GPU would not reorder.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <type_traits>
#include <vector>

#include "cuda/emulation/runtime.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

namespace fllm::cuda {

struct Place {
  unsigned x = 0, y = 0, z = 0;
};

inline Place threadIdx, blockIdx, blockDim, gridDim;

struct int4 {
  int x, y, z, w;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

namespace emulation {

constexpr unsigned kWarp = 32;
constexpr std::size_t kStackBytes = 64 << 10;

// Where a thread of the system goes on: as swapcontext(), without its call of the system.
struct Stop {
  void* words[5];
};

[[noreturn, gnu::noinline]] inline void go_to(Stop& stop) { __builtin_longjmp(stop.words, 1); }

// Comes back when somebody goes to `here`.
[[gnu::noinline]] inline void leave(Stop& here, Stop& there) {
  if (__builtin_setjmp(here.words) == 0) go_to(there);
}

// Lets those that arrive go on once all have.
struct Barrier {
  unsigned arrived = 0, generation = 0;
};

class Block {
 public:
  Block(unsigned threads, const std::function<void()>& body)
      : body_(body), fibres_(threads), warps_((threads + kWarp - 1) / kWarp), shared_(warps_.size()), slots_(threads) {}

  void run() {
    current_ = this;
    for (unsigned t = 0; t < fibres_.size(); ++t) start(t);
    for (bool any = true; any;) {
      any = false;
      for (unsigned t = 0; t < fibres_.size(); ++t) any = resume(t) || any;
    }
  }

  static Block& current() { return *current_; }

  void sync_block() { wait(barrier_, static_cast<unsigned>(fibres_.size())); }
  void sync_warp() { wait(warps_[running_ / kWarp], warp_threads()); }

  // Every thread of the warp gives a value, and gets that of a lane of its own choice.
  std::uint64_t exchange(std::uint64_t value, unsigned lane) {
    slots_[running_] = value;
    sync_warp();
    const std::uint64_t got = slots_[running_ / kWarp * kWarp + lane];
    sync_warp();
    return got;
  }
  // Every thread of the warp gives a value; calls `read` with those of all lanes.
  template <typename T, typename Read>
  void share(const T& value, Read&& read) {
    static_assert(sizeof(T) <= kSharedBytes && std::is_trivially_copyable_v<T>);
    T* const values = reinterpret_cast<T*>(shared_[running_ / kWarp].bytes);
    values[running_ % kWarp] = value;
    sync_warp();
    read(static_cast<const T*>(values));
    sync_warp();
  }
  unsigned lane() const { return running_ % kWarp; }
  unsigned thread() const { return running_; }
  unsigned warp_threads() const {
    return std::min<unsigned>(kWarp, static_cast<unsigned>(fibres_.size()) - running_ / kWarp * kWarp);
  }

 private:
  struct Fibre {
    ucontext_t context;  // for the start
    Stop stop;
    std::unique_ptr<char[]> stack;
    bool started = false, done = false;
  };

  static constexpr std::size_t kSharedBytes = 64;
  struct Shared {
    alignas(16) unsigned char bytes[kWarp * kSharedBytes];
  };

  static void enter() {
    Block& block = *current_;
    block.body_();
    block.fibres_[block.running_].done = true;
    go_to(block.scheduler_);
  }

  void start(unsigned t) {
    Fibre& fibre = fibres_[t];
    fibre.stack = std::make_unique_for_overwrite<char[]>(kStackBytes);
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = kStackBytes;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, &Block::enter, 0);
  }

  bool resume(unsigned t) {
    if (fibres_[t].done) return false;
    running_ = t;
    threadIdx.x = t;
    if (fibres_[t].started) {
      leave(scheduler_, fibres_[t].stop);
    } else {
      begin(fibres_[t]);
    }
    return true;
  }

  [[gnu::noinline]] void begin(Fibre& fibre) {
    fibre.started = true;
    if (__builtin_setjmp(scheduler_.words) == 0) setcontext(&fibre.context);
  }

  void wait(Barrier& barrier, unsigned all) {
    const unsigned generation = barrier.generation;
    if (++barrier.arrived == all) {
      barrier.arrived = 0;
      ++barrier.generation;
      return;
    }
    while (barrier.generation == generation) leave(fibres_[running_].stop, scheduler_);
  }

  inline static Block* current_ = nullptr;
  const std::function<void()>& body_;
  std::vector<Fibre> fibres_;
  std::vector<Barrier> warps_;
  std::vector<Shared> shared_;
  std::vector<std::uint64_t> slots_;
  Barrier barrier_;
  Stop scheduler_{};
  unsigned running_ = 0;
};

inline unsigned char* dynamic_memory = nullptr;

template <typename T>
std::uint64_t bits(T value) {
  std::uint64_t all = 0;
  std::memcpy(&all, &value, sizeof value);
  return all;
}

template <typename T>
T from_bits(std::uint64_t all) {
  T value;
  std::memcpy(&value, &all, sizeof value);
  return value;
}

}  // namespace emulation

template <typename... Parameters, typename... Arguments>
void launch_shared(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, std::size_t bytes, Stream stream,
                   Arguments... arguments) {
  const emulation::Lock lock(emulation::mutex);
  ++emulation::launches;
  stream->work.push_back([=] {
    const std::function<void()> body = [&] { kernel(arguments...); };
    gridDim = {blocks, 1, 1};
    blockDim = {threads, 1, 1};
    const std::unique_ptr<unsigned char, void (*)(void*)> shared(
        static_cast<unsigned char*>(std::aligned_alloc(256, (bytes + 256) / 256 * 256)), std::free);
    emulation::dynamic_memory = shared.get();
    for (unsigned b = 0; b < blocks; ++b) {
      blockIdx = {b, 0, 0};
      std::memset(shared.get(), 0xA5, bytes);
      emulation::Block(threads, body).run();
    }
  });
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, Stream stream, Arguments... arguments) {
  launch_shared(kernel, blocks, threads, 0, stream, arguments...);
}

inline unsigned char* dynamic_shared() { return emulation::dynamic_memory; }

inline void __syncwarp() { emulation::Block::current().sync_warp(); }

inline bool __any_sync(unsigned, bool holds) {
  bool any = false;
  emulation::Block& block = emulation::Block::current();
  block.share(holds, [&](const bool* all) { any = std::count(all, all + block.warp_threads(), true) > 0; });
  return any;
}

inline void __syncthreads() { emulation::Block::current().sync_block(); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  emulation::Block& block = emulation::Block::current();
  const unsigned lane = block.lane() ^ static_cast<unsigned>(mask);
  return emulation::from_bits<T>(block.exchange(emulation::bits(value), std::min(lane, block.warp_threads() - 1)));
}

template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}

template <typename T>
T atomicMin(T* at, T value) {
  const T before = *at;
  *at = std::min(before, value);
  return before;
}

template <typename T>
T atomicMax(T* at, T value) {
  const T before = *at;
  *at = std::max(before, value);
  return before;
}

inline int __dp4a(int a, int b, int sum) {
  for (int byte = 0; byte < 4; ++byte) {
    sum += static_cast<std::int8_t>(a >> (8 * byte)) * static_cast<std::int8_t>(b >> (8 * byte));
  }
  return sum;
}

// Bytes of `a` (0 to 3) and `b` (4 to 7) by four numbers of four bits.
inline std::uint32_t __byte_perm(std::uint32_t a, std::uint32_t b, std::uint32_t numbers) {
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  std::uint32_t chosen = 0;
  for (unsigned i = 0; i < 4; ++i) {
    chosen |= static_cast<std::uint32_t>(bytes >> (numbers >> 4 * i & 7u) * 8 & 255u) << 8 * i;
  }
  return chosen;
}

inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline std::uint32_t __float_as_uint(float a) { return emulation::from_bits<std::uint32_t>(emulation::bits(a)); }
inline float __uint_as_float(std::uint32_t a) { return emulation::from_bits<float>(a); }
inline std::int64_t __double_as_longlong(double a) { return emulation::from_bits<std::int64_t>(emulation::bits(a)); }
inline double __longlong_as_double(std::int64_t a) { return emulation::from_bits<double>(emulation::bits(a)); }
inline std::uint32_t __umulhi(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::uint32_t>((std::uint64_t{a} * b) >> 32);
}
// A load that the caches need not keep.
template <typename T>
T __ldcs(const T* at) {
  return *at;
}

}  // namespace fllm::cuda
