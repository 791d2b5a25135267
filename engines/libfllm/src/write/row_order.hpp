// The order of rows within a shard (fllm_export/table/clusters.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.hpp"
#include "write/fixed_point.hpp"

namespace fllm::writing {

// Writes the points [n, kernels::kPointFloats] of rows [n, dim]: `count` coordinates, zeros, and the norm.
void write_points(const kernels::Writing& kernels, const Weights& directions, const float* rows, std::size_t n,
                  std::size_t dim, std::size_t count, float* points);

// Orders n numbers of points, which ascend, such that each `tile_rows` of them lie together and ascend; on one thread.
void split_rows(const kernels::Writing& kernels, const float* points, std::size_t tile_rows, std::uint32_t* rows,
                std::size_t n);

// The same on all threads that a call may use.
void split_rows_together(const kernels::Writing& kernels, const float* points, std::size_t tile_rows,
                         std::uint32_t* rows, std::size_t n);

// Writes the order of n < 2^32 points [n, kernels::kPointFloats] in which each `tile_rows` of them lie together.
void order_rows(const kernels::Writing& kernels, const float* points, std::size_t n, std::size_t tile_rows,
                std::int64_t* order);

}  // namespace fllm::writing
