// Exact scores of single rows, on the host: float32(sum * (row scale * item scale) + bias), as every engine defines it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "cuda/host/device_table.hpp"
#include "search/search.hpp"
#include "whole_item.hpp"

namespace fllm::tensorrt {

class ExactRows {
 public:
  // An int8 or fp8 table, whose memory must stay.
  explicit ExactRows(const cuda::Rows& table);

  // `row` is the number of a row in the table, in scan order.
  Candidate score(std::uint64_t row, const WholeItem& item) const;

  // take(row, candidate) for rows [first, end).
  template <typename Take>
  void score_all(std::uint64_t first, std::uint64_t end, const WholeItem& item, Take&& take) const {
    for (const Tile* tile = &tile_of(first); first < end; ++tile) {
      for (; first < std::min(end, tile->first_row + tile->rows); ++first) take(first, score(*tile, first, item));
    }
  }

 private:
  const Tile& tile_of(std::uint64_t row) const;
  Candidate score(const Tile& tile, std::uint64_t row, const WholeItem& item) const;

  const cuda::Rows table_;
  std::array<double, 256> values_;  // of the codes
};

}  // namespace fllm::tensorrt
