// What a wave of a tile leaves to the device to know.
#pragma once

#include "cuda/device.hpp"
#include "cuda/wave.hpp"

namespace fllm::cuda {

// Rows of the wave that are there.
__device__ __forceinline__ std::uint64_t rows_of(const Wave& wave) {
  if (wave.tile == nullptr) return wave.rows;
  const std::uint64_t all = wave.tile->rows, left = all > wave.first_row ? all - wave.first_row : 0;
  return left < wave.rows ? left : wave.rows;
}

__device__ __forceinline__ float most_bias_of(const Wave& wave) {
  return wave.tile == nullptr ? wave.most_bias : wave.tile->most_bias;
}

}  // namespace fllm::cuda
