// Numbers that look random, by which samples of rows are drawn.
#pragma once

#include <cstdint>

namespace fllm::writing {

// The i-th number of SplitMix64 (Steele, Lea, Flood 2014) with the seed 0.
inline std::uint64_t split_mix(std::uint64_t i) {
  std::uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace fllm::writing
