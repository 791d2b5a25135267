// How far the sums that fp8 rows are filtered by may be off: what a row is looked at again by.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "cuda/wave.hpp"
#include "kernels/kernels.hpp"

namespace fllm::cuda {

inline constexpr double kLargestE4m3 = 448;

// Of float32 sums of products with the integers q, in any order, every addition rounded to nearest.
inline float error_alone(std::size_t dim, const std::int8_t* high, const std::int8_t* low) {
  double magnitudes = 0;
  for (std::size_t j = 0; j < dim; ++j) magnitudes += std::abs(128 * high[j] + low[j]);
  return static_cast<float>(kernels::float_error(dim) * kLargestE4m3 * 1.001 * magnitudes);
}

// Of tensor cores' sums of products with both limbs, 128 high and low, for rows of at most kMostManyDim numbers.
//
// The products are exact: four binary digits by seven. An instruction adds sixteen of them to a sum. PTX promises at
// least single precision, and no order, no rounding, nothing of numbers below the normal ones. What was measured (Fasi,
// Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021): groups of g products and the sum
// before are shifted to where the largest of them begins, what lies below some last place is cut off, and so it is of
// what they add up to. That makes g + 2 cuts, at most 3 a product, hence at most 48 an instruction, whatever the
// groups; single precision means that each takes less than 2^-23 of the largest number there. No number exceeds S, the
// sum of the products' magnitudes, by more than was cut off before: 48 * 2^-23 * 2 * 64 < 0.0008 of S, for which 1.002
// has room, as it has for the roundings of the margin itself. Sixteen columns of a limb take an instruction; columns of
// zeros lose nothing. Codes below the normal ones may be taken as zeros.
inline float error_together(std::size_t dim, const std::int8_t* high, const std::int8_t* low) {
  constexpr double kCut = 48 * 0x1p-23, kLargestSubnormal = 7 * 0x1p-9;
  const auto instructions = static_cast<double>(2 * ((dim + kPieceBytes - 1) / kPieceBytes));
  double magnitudes = 0;
  for (std::size_t j = 0; j < dim; ++j) magnitudes += std::abs(128 * high[j]) + std::abs(low[j]);
  return static_cast<float>((kCut * instructions * kLargestE4m3 + kLargestSubnormal) * 1.002 * magnitudes);
}

}  // namespace fllm::cuda
