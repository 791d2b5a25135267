// A wave of a tile of which only the device knows how many rows it has.
#pragma once

#include "cuda/device.hpp"
#include "cuda/wave.hpp"

namespace fllm::cuda {

// The wave as far as its tile has rows.
__device__ __forceinline__ Wave within_tile(Wave wave) {
  if (wave.tile == nullptr) return wave;
  const std::uint64_t all = wave.tile->rows, left = all > wave.first_row ? all - wave.first_row : 0;
  if (left < wave.rows) wave.rows = left;
  wave.most_bias = wave.tile->most_bias;
  return wave;
}

}  // namespace fllm::cuda
