// What a batch of items that lies in device memory is made ready from, and where its parts go.
#pragma once

#include "cuda/wave.hpp"

namespace fllm::cuda {

struct Preparation {
  const float* vectors;            // [count, dim]
  const std::int64_t* valid_rows;  // of the tile
  std::uint64_t tile_rows;         // room in the tile: there are no more than these
  std::uint32_t dim, padded_dim, capacity, k;
  double error_share_alone, error_share_together;  // host/item_error.hpp's
  TileFacts* tile;
  Item* items;
  Candidates* candidates;
  std::int8_t* limbs;     // [count, 2, padded dim]
  float* wholes;          // [count, padded dim]
  float* scores;          // [count, capacity], and keys: a candidate's key is its score
  std::int64_t* rows;     // [count, capacity]
  std::uint32_t* counts;  // [count], as the following
  std::uint32_t* kept;
  std::uint32_t* peaks;
  float* thresholds;
  Share* shares;  // [count, stride]
  std::uint32_t stride;
};

}  // namespace fllm::cuda
