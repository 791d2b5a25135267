// e4m3 numbers as whole ones: exact, whatever the order of a sum.
#pragma once

#include "cuda/device.hpp"

namespace fllm::cuda {

// What whole_of_e4m3() counts in: the least positive e4m3 number.
constexpr double kE4m3Unit = 0x1p-9;

__device__ __forceinline__ int whole_of_e4m3(unsigned code) {
  const unsigned exponent = code >> 3 & 15u, mantissa = code & 7u;
  const int magnitude = static_cast<int>(exponent == 0 ? mantissa : (8 + mantissa) << (exponent - 1));
  return code & 0x80u ? -magnitude : magnitude;
}

}  // namespace fllm::cuda
