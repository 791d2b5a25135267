// A tile as a plan hands it over: its sizes, and where its tensors lie in device memory.
#pragma once

#include <cstdint>

#include "cuda/wave.hpp"

namespace fllm::plugin {

struct TileShape {
  std::uint64_t rows;
  std::uint32_t dim;  // at most cuda::kMaxDim
  std::uint32_t items;
  std::uint32_t k;
};

struct TileTensors {
  const std::int8_t* codes;  // [rows, dim], of either kind
  cuda::Codes kind;
  const float* scales;             // [rows]
  const std::int64_t* valid_rows;  // rows from there on are padding
  const float* item_vectors;       // [items, dim]
  const float* bias;               // [rows], or null
  float* scores;                   // [items, k], best first; -infinity where there is no row
  std::int64_t* row_numbers;       // [items, k]
  float* m;                        // [items], the highest score
  float* l;                        // [items], the sum of exp(score - m)
};

}  // namespace fllm::plugin
