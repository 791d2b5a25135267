// The sketch of a shard and an item vector prepared for it (docs/internals/sketch.md); fllm_export.table.sketch writes
// them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/sketch.hpp"
#include "machine/aligned.hpp"

namespace fllm {

// The sketch tensors of one shard, in place.
struct Sketch {
  std::size_t dim = 0;
  std::size_t dims = 0;          // of the sketch: a multiple of 16
  const float* basis = nullptr;  // [dims, dim]
  std::size_t basis_number = 0;  // shards with the same numbers in their bases share it
  const std::uint8_t* coarse = nullptr;
  const std::uint16_t* coarse_factors = nullptr;
  const std::uint8_t* fine = nullptr;
  const std::uint16_t* fine_factors = nullptr;

  std::size_t parts() const { return dims >= dim ? 2 : 3; }

  // Rows [first, first + rows) of the shard, first being a multiple of 16; `bias` is that of row `first`, or null.
  kernels::SketchBlocks blocks(std::size_t first, std::size_t rows, const float* bias, bool with_fine) const;
};

// One item vector, turned by a basis and rounded to eight bits. Shards with the same basis share it.
class SketchQuery {
 public:
  // Least squares shrinks the product with a row that the item is close to, by this much for rotated rows.
  static constexpr double kCoarseUnbiased = 1.15;
  static constexpr double kFullUnbiased = 1.011;

  // `values` is the vector [dim] as the exact pass sees it: integers times their scale.
  SketchQuery(const Sketch& sketch, const double* values);

  // Whether bounds can be computed in float32; if not, the caller scores every row.
  bool usable() const { return usable_; }

  // Upper bounds that no score exceeds, before or after it is rounded to float32.
  kernels::SketchItem proving(bool with_fine) const;

  // Upper bounds `deviations` standard deviations above an unbiased estimate.
  kernels::SketchItem estimating(bool with_fine, double deviations) const;

 private:
  std::size_t dim_;
  std::size_t dims_;
  Aligned<std::int8_t> limb_;
  std::int32_t limb_sum_ = 0;
  float scale_ = 1.0f;
  double rounding_ = 0.0;
  double inner_ = 0.0;
  double outer_ = 0.0;
  bool usable_ = true;
};

}  // namespace fllm
