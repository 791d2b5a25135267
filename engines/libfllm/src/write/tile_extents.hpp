// What bounds the scores of a tile (fllm_export/table/tile_bounds.py).
#pragma once

#include <cstddef>

#include "kernels/kernels.hpp"

namespace fllm::writing {

// Writes the direction [dim] and the extents [4] of one tile of rows [n, dim], n >= 1; `bias` [n] may be null.
void describe_tile(const kernels::Writing& kernels, const float* rows, std::size_t n, std::size_t dim,
                   const float* bias, float* direction, float* extents);

}  // namespace fllm::writing
