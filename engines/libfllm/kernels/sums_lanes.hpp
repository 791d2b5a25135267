// Sums of float32 vectors in float64, for `Wide` of the file that includes this one.
//
// A few numbers of the sum stay in registers while all vectors are added to them. Which cache lines come next is not
// what a processor guesses, as the vectors lie anywhere, so they are prefetched.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/writing.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kAhead = 8;  // vectors between the one that is added and the one that is prefetched
constexpr std::size_t kLineFloats = 16;

// Prefetches what is added kAhead vectors later: numbers from `first` on of a vector; then, if there are any, the
// numbers of the next block, `step` further on; then those of the next sum.
inline void prefetch_later(const Picked& picked, std::size_t k, std::size_t first, std::size_t step, bool more) {
  std::size_t at = k + kAhead, from = first;
  if (at >= picked.count && more) {
    at = at - picked.count < picked.count ? at - picked.count : picked.count - 1;
    from = first + step;
  } else if (at >= picked.count) {
    if (at >= picked.count + picked.after) return;
    from = 0;
  }
  const float* next = picked.vectors + static_cast<std::size_t>(picked.places[at]) * picked.stride + from;
  for (std::size_t line = 0; line < step; line += kLineFloats) __builtin_prefetch(next + line);
}

template <std::size_t kVectors>
void sum_block(const Picked& picked, std::size_t first, bool more, double factor, float* out) {
  constexpr std::size_t kNumbers = kVectors * Wide::kLanes;
  typename Wide::Vector sums[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) sums[v] = Wide::zero();
  for (std::size_t k = 0; k < picked.count; ++k) {
    prefetch_later(picked, k, first, kNumbers, more);
    const float* values = picked.vectors + static_cast<std::size_t>(picked.places[k]) * picked.stride + first;
    for (std::size_t v = 0; v < kVectors; ++v) sums[v] = Wide::add(sums[v], Wide::widen(values + v * Wide::kLanes));
  }
  const typename Wide::Vector factors = Wide::all(factor);
  for (std::size_t v = 0; v < kVectors; ++v)
    Wide::narrow(out + first + v * Wide::kLanes, Wide::multiply(sums[v], factors));
}

void sum_picked(const Picked& picked, std::size_t n, double factor, float* out) {
  constexpr std::size_t kVectors = 8, kBlock = kVectors * Wide::kLanes;
  std::size_t i = 0;
  for (; i + kBlock <= n; i += kBlock) sum_block<kVectors>(picked, i, i + 2 * kBlock <= n, factor, out);
  for (; i + Wide::kLanes <= n; i += Wide::kLanes) sum_block<1>(picked, i, i + 2 * Wide::kLanes <= n, factor, out);
  for (; i < n; ++i) {
    double sum = 0;
    for (std::size_t k = 0; k < picked.count; ++k)
      sum += static_cast<double>(picked.vectors[static_cast<std::size_t>(picked.places[k]) * picked.stride + i]);
    out[i] = static_cast<float>(sum * factor);
  }
}

}  // namespace

}  // namespace fllm::kernels
