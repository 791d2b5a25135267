// The sketch of rows (fllm_export/table/sketch.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.hpp"
#include "write/fixed_point.hpp"

namespace fllm::writing {

// Where the sketch of some rows lies, from a block's beginning on.
struct SketchOut {
  std::uint8_t *coarse, *fine;
  std::uint16_t *coarse_factors, *fine_factors;
};

// A basis, and by how much it may deviate from an orthonormal one and from its own fixed point.
struct SketchBasis {
  const Weights& weights;
  std::size_t sketch_dims, dim;
  double defect, snapped;
  std::size_t parts() const { return sketch_dims >= dim ? 2 : 3; }
};

// Writes the blocks of rows [n, dim]; the last one is filled up with zeros.
void sketch_rows(const kernels::Writing& kernels, const SketchBasis& basis, const float* rows, std::size_t n,
                 const SketchOut& out);

}  // namespace fllm::writing
