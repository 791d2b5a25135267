// Floats as whole numbers that are smaller where the float is greater; the order of finite and infinite floats, in
// which both zeros are one.
#pragma once

#include "cuda/device.hpp"

namespace fllm::cuda {

__device__ __forceinline__ std::uint32_t descending(float value) {
  const std::uint32_t bits = __float_as_uint(value + 0.0f);  // -0 + 0 is 0
  return bits & 0x80000000u ? bits : 0x7FFFFFFFu - bits;
}

__device__ __forceinline__ float from_descending(std::uint32_t number) {
  return __uint_as_float(number & 0x80000000u ? number : 0x7FFFFFFFu - number);
}

}  // namespace fllm::cuda
