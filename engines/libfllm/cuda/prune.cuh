// Of an item's candidates the K first by (key descending, id ascending) stay: a radix select, a block an item.
#pragma once

#include "cuda/device.hpp"
#include "cuda/order.cuh"
#include "cuda/wave.hpp"

namespace fllm::cuda {

constexpr unsigned kPruneThreads = 256;
constexpr unsigned kDigits = 16;  // of 8 bits: four of the key, eight of the id, four of the place
constexpr unsigned kDigitValues = 256;

static_assert(kPruneThreads == kDigitValues, "a thread a value of a digit");

// What candidates are ordered by, least first: its digits from the most significant on. The place among the candidates
// tells apart even users that a table holds twice.
struct Rank {
  std::uint32_t key;
  std::uint64_t id;
  std::uint32_t place;

  __device__ unsigned digit(unsigned number) const {
    if (number < 4) return key >> (24 - 8 * number) & 255u;
    if (number < 12) return static_cast<unsigned>(id >> (56 - 8 * (number - 4)) & 255u);
    return place >> (24 - 8 * (number - 12)) & 255u;
  }
  // Compares the first `digits` digits: negative where this comes first, 0 where they are equal.
  __device__ int compare(const Rank& other, unsigned digits) const {
    for (unsigned number = 0; number < digits; ++number) {
      const int difference = static_cast<int>(digit(number)) - static_cast<int>(other.digit(number));
      if (difference != 0) return difference;
    }
    return 0;
  }
  __device__ void set(unsigned number, unsigned value) {
    if (number < 4) {
      key |= static_cast<std::uint32_t>(value) << (24 - 8 * number);
    } else if (number < 12) {
      id |= static_cast<std::uint64_t>(value) << (56 - 8 * (number - 4));
    } else {
      place |= static_cast<std::uint32_t>(value) << (24 - 8 * (number - 12));
    }
  }
};

__device__ __forceinline__ Rank rank_of(const Candidates& candidates, unsigned i) {
  return {descending(candidates.keys[i]), static_cast<std::uint64_t>(candidates.ids[i]), i};
}

// Where the cut lies: candidates whose first `digits` digits do not exceed those of `last` stay.
struct Cut {
  Rank last;
  unsigned digits;
};

// Finds the cut, digit by digit; it ends as soon as all that share the digits found so far stay together.
__device__ inline Cut find_cut(const Candidates& candidates, unsigned n, unsigned k) {
  __shared__ unsigned counts[kDigitValues];
  __shared__ Cut cut;
  __shared__ unsigned wanted, found;
  if (threadIdx.x == 0) {
    cut = {{0, 0, 0}, 0};
    wanted = k;
    found = n;
  }
  __syncthreads();
  while (found != wanted && cut.digits < kDigits) {
    const Cut before = cut;
    counts[threadIdx.x] = 0;
    __syncthreads();
    for (unsigned i = threadIdx.x; i < n; i += kPruneThreads) {
      const Rank rank = rank_of(candidates, i);
      if (rank.compare(before.last, before.digits) == 0) atomicAdd(&counts[rank.digit(before.digits)], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned value = 0;
      for (; counts[value] < wanted; ++value) wanted -= counts[value];
      found = counts[value];
      cut.last.set(cut.digits, value);
      ++cut.digits;
    }
    __syncthreads();
  }
  return cut;
}

// One item's candidates. Where more were offered than there was room for, those of the last wave are given up, and
// `overflowed` says whether the wave must be scored again; what was kept of them raises the threshold all the same.
__device__ inline void prune_item(const Candidates& candidates, std::uint8_t* overflowed) {
  const unsigned offered = *candidates.count;
  const bool full = offered > candidates.capacity;
  const unsigned n = full ? candidates.capacity : offered;
  if (threadIdx.x == 0) *overflowed = full ? 1 : 0;
  if (n < candidates.k) {
    if (threadIdx.x == 0) *candidates.kept = n;
    return;
  }
  const unsigned staying = full ? *candidates.kept : n;
  const Cut cut = find_cut(candidates, n, candidates.k);
  __shared__ unsigned places, worst;
  if (threadIdx.x == 0) places = worst = 0;
  __syncthreads();
  for (unsigned first = 0; first < n; first += kPruneThreads) {
    const unsigned i = first + threadIdx.x;
    const bool best = i < n && rank_of(candidates, i).compare(cut.last, cut.digits) <= 0;
    const float key = best ? candidates.keys[i] : 0.0f, score = best ? candidates.scores[i] : 0.0f;
    const std::int64_t id = best ? candidates.ids[i] : 0;
    // Places are filled up to those that have been read, never beyond.
    __syncthreads();
    if (best) atomicMax(&worst, descending(key));
    if (best && i < staying) {
      const unsigned place = atomicAdd(&places, 1u);
      candidates.keys[place] = key;
      candidates.scores[place] = score;
      candidates.ids[place] = id;
    }
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  *candidates.count = *candidates.kept = places;
  *candidates.threshold = from_descending(worst);
}

// A block an item; `overflowed` [items].
__global__ void __launch_bounds__(kPruneThreads, 1) prune(const Candidates* items, std::uint8_t* overflowed) {
  const Candidates candidates = items[blockIdx.x];
  prune_item(candidates, overflowed + blockIdx.x);
}

}  // namespace fllm::cuda
