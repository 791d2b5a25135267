// Tiles that end where clusters do (fllm_export/table/clusters.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.hpp"

namespace fllm::writing {

// Writes an order of n < 2^32 points [n, kernels::kPointFloats], and returns the ends of its tiles where clusters lie
// well apart. Otherwise it is that of order_rows(), all tiles but the last have `tile_rows`, and there is nothing to
// return.
std::vector<std::uint64_t> tile_rows_of(const kernels::Writing& kernels, const float* points, std::size_t n,
                                        std::size_t tile_rows, std::int64_t* order);

}  // namespace fllm::writing
