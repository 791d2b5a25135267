// How near the int8 kernels come to what the machine can do: one item against a plain read of the same bytes by as
// many threads, many items against a loop of nothing but dot-product instructions. Compared runs take turns, so that a
// noisy neighbour meets both.
//
// Usage: kernels_bench [MiB of codes] [threads]; FLLM_ISA chooses the level.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#define FLLM_WIDEST_VECTORS __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define FLLM_WIDEST_VECTORS
#endif

#include "kernels/kernels.hpp"

namespace {

using fllm::kernels::kAlign;
using fllm::kernels::kBlockRows;
using fllm::kernels::Kernels;

struct Free {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{kAlign}); }
};
using Buffer = std::unique_ptr<void, Free>;

Buffer allocate(std::size_t bytes) { return Buffer(::operator new(bytes, std::align_val_t{kAlign})); }

void fill(std::int8_t* values, std::size_t n, int lowest, int highest) {
  std::minstd_rand random(n);
  std::vector<std::int8_t> sample(1 << 16);
  for (auto& value : sample) value = static_cast<std::int8_t>(lowest + random() % (highest - lowest + 1));
  for (std::size_t i = 0; i < n; ++i) values[i] = sample[i % sample.size()];
}

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

struct Pair {
  double first, second;  // median seconds
};

Pair take_turns(int runs, const std::function<void()>& first, const std::function<void()>& second) {
  std::vector<double> firsts, seconds_of_second;
  for (int run = 0; run < runs; ++run) {
    firsts.push_back(seconds(first));
    seconds_of_second.push_back(seconds(second));
  }
  return {median(firsts), median(seconds_of_second)};
}

volatile std::uint64_t sink;  // keeps results from being optimised away

FLLM_WIDEST_VECTORS std::uint64_t sum_words(const std::uint64_t* words, std::size_t n) {
  std::uint64_t sums[64] = {};
  for (std::size_t i = 0; i + 64 <= n; i += 64) {
    for (std::size_t k = 0; k < 64; ++k) sums[k] += words[i + k];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

// Runs part(thread) for each thread.
void in_parallel(int threads, const std::function<void(int)>& part) {
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) running.emplace_back(part, t);
  for (auto& thread : running) thread.join();
}

void one_item(const Kernels& kernels, std::size_t dim, const std::int8_t* codes, std::size_t bytes, int threads) {
  std::vector<std::int8_t> limb(dim);
  fill(limb.data(), dim, -64, 63);
  const Buffer packed = allocate(kernels.int8_one_bytes(dim));
  kernels.int8_one_pack(limb.data(), dim, packed.get());
  const std::size_t share = bytes / threads / (dim * kBlockRows) * (dim * kBlockRows);  // bytes of a thread
  const auto read = [&](int t) {
    sink = sum_words(reinterpret_cast<const std::uint64_t*>(codes + t * share), share / sizeof(std::uint64_t));
  };
  const auto scan = [&](int t) {
    alignas(kAlign) std::int32_t high[kBlockRows], low[kBlockRows];
    for (std::size_t i = 0; i < share; i += dim * kBlockRows) {
      kernels.int8_one(codes + t * share + i, kBlockRows, dim, packed.get(), packed.get(), high, low);
    }
    sink = high[0] + low[0];
  };
  const Pair times = take_turns(15, [&] { in_parallel(threads, read); }, [&] { in_parallel(threads, scan); });
  const double gigabytes = static_cast<double>(share) * threads * 1e-9;
  std::printf("one item   d=%-5zu read %5.1f GB/s   int8_one %5.1f GB/s   time / read time %.3f\n", dim,
              gigabytes / times.first, gigabytes / times.second, times.second / times.first);
}

#if defined(__x86_64__)
// Multiply-adds of one call: independent chains of 512-bit dot products, more than their latency.
constexpr int kChains = 12;
constexpr int kSteps = 200000;
constexpr double kPeakProducts = 64.0 * kChains * kSteps;

__attribute__((target("avx512f,avx512vnni"))) void peak() {
  __m512i sums[kChains] = {};
  const __m512i factor = _mm512_set1_epi8(1);
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (auto& sum : sums) __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(factor));
  }
  std::uint64_t words[8];
  _mm512_storeu_si512(words, sums[0]);
  sink = words[0];
}
#endif

void many_items(const Kernels& kernels, std::size_t dim, std::size_t items) {
  const std::size_t rows = (std::size_t{1} << 20) / dim / kBlockRows * kBlockRows;
  std::vector<std::int8_t> codes(rows * dim), limb(items * dim);
  fill(codes.data(), codes.size(), -127, 127);
  fill(limb.data(), limb.size(), -64, 63);
  const Buffer packed = allocate(kernels.int8_many_bytes(items, dim));
  kernels.int8_many_pack(limb.data(), items, dim, packed.get());
  const Buffer sums = allocate(kBlockRows * items * sizeof(std::int32_t));
  auto* high = static_cast<std::int32_t*>(sums.get());
  const auto multiply = [&] {
    for (std::size_t r = 0; r < rows; r += kBlockRows) {
      kernels.int8_many(codes.data() + r * dim, kBlockRows, dim, items, packed.get(), nullptr, high, nullptr);
    }
    sink = static_cast<std::uint64_t>(high[0]);
  };
  const double products = static_cast<double>(rows) * static_cast<double>(dim * items);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni")) {
    const Pair times = take_turns(31, peak, multiply);
    const double rate = products / times.second;
    std::printf("many items d=%-5zu items=%-4zu %6.1f G products/s, %.3f of the 512-bit peak\n", dim, items,
                rate * 1e-9, rate / (kPeakProducts / times.first));
    return;
  }
#endif
  const Pair times = take_turns(31, [] {}, multiply);
  std::printf("many items d=%-5zu items=%-4zu %6.1f G products/s\n", dim, items, products / times.second * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t bytes = (argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1024) << 20;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 2;
  const Kernels* kernels = fllm::kernels::find("");
  std::printf("level %s, %zu MiB of codes, %d threads\n", kernels->isa, bytes >> 20, threads);
  const Buffer memory = allocate(bytes);
  auto* codes = static_cast<std::int8_t*>(memory.get());
  fill(codes, bytes, -127, 127);
  for (const std::size_t dim : {64, 128, 384, 4096}) one_item(*kernels, dim, codes, bytes, threads);
  for (const std::size_t items : {16, 32, 64, 128}) many_items(*kernels, 128, items);
  for (const std::size_t dim : {64, 384, 4096}) many_items(*kernels, dim, 128);
  return 0;
}
