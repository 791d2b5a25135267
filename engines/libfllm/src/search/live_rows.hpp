// Keeps deleted rows out of a pass: whoever takes hits asks for them, and in denominators they count for nothing.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "format/table.hpp"
#include "machine/aligned.hpp"
#include "search/rows.hpp"

namespace fllm {

// One per thread. Where a denominator is wanted, a deleted row gets the score kLowest, which is far below any other and
// adds nothing: after a block is scored, or, where scoring and adding up are one, by the scale 0 and that bias.
class LiveRows {
 public:
  static constexpr float kLowest = -3e38f;

  explicit LiveRows(const Tombstones& tombstones)
      : tombstones_(tombstones),
        scales_(tombstones.empty() ? 0 : kernels::kBlockRows),
        bias_(tombstones.empty() ? 0 : kernels::kBlockRows) {}

  bool holds(const Tile& tile, std::size_t row) const { return !tombstones_.holds(tile.first_row + row); }

  // One bit per row of a block: whether it is deleted.
  std::uint64_t deleted(const RowBlock& rows) const { return bits(*rows.tile, rows.first, rows.count); }

  // Lets the deleted rows of scored ones count for nothing.
  static void lower(float* scores, std::uint64_t deleted) {
    for (; deleted != 0; deleted &= deleted - 1) scores[std::countr_zero(deleted)] = kLowest;
  }

  // Lets the deleted rows of a block that is to be scored count for nothing, until the next call.
  void mask(RowBlock& rows, std::uint64_t deleted) {
    if (deleted == 0) return;
    std::copy_n(rows.block.scales, rows.count, scales_.data());
    if (rows.block.bias == nullptr) {
      std::fill_n(bias_.data(), rows.count, 0.0f);
    } else {
      std::copy_n(rows.block.bias, rows.count, bias_.data());
    }
    for (std::uint64_t left = deleted; left != 0; left &= left - 1) {
      const int r = std::countr_zero(left);
      scales_[static_cast<std::size_t>(r)] = 0.0f;
      bias_[static_cast<std::size_t>(r)] = kLowest;
    }
    // Where the errors of scores are those of scales, a deleted row has none.
    if (rows.block.row_errors == rows.block.scales) rows.block.row_errors = scales_.data();
    rows.block.scales = scales_.data();
    rows.block.bias = bias_.data();
  }

 private:
  std::uint64_t bits(const Tile& tile, std::size_t first, std::size_t count) const {
    if (!tile.has_deleted) return 0;
    static_assert(kernels::kBlockRows <= Tombstones::kWordRows);
    const std::uint64_t word = tombstones_.word(tile.first_row + first);
    return count < Tombstones::kWordRows ? word & ((std::uint64_t{1} << count) - 1) : word;
  }

  const Tombstones& tombstones_;
  Aligned<float> scales_, bias_;
};

}  // namespace fllm
