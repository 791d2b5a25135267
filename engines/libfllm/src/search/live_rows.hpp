// Keeps deleted rows out of a pass: they get a bias so low that no score of theirs counts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/table.hpp"
#include "machine/aligned.hpp"
#include "search/rows.hpp"
#include "search/sketch_scan.hpp"

namespace fllm {

// One per thread. A deleted row is scored like its neighbours, with the scale 0 and the bias kLowest: its score is far
// below any other, and adds nothing to a denominator. It may still be a hit while fewer than K users are known, so
// whoever takes hits asks the tombstones.
class LiveRows {
 public:
  static constexpr float kLowest = -3e38f;

  explicit LiveRows(const Tombstones& tombstones)
      : tombstones_(tombstones),
        scales_(tombstones.empty() ? 0 : kernels::kBlockRows),
        bias_(tombstones.empty() ? 0 : SketchScan::kChunkRows) {}

  bool holds(const Tile& tile, std::size_t row) const { return !tombstones_.holds(tile.first_row + row); }

  // Lets the deleted rows of a block count for nothing, until the next call. False when no other rows are in it.
  bool mask(RowBlock& rows) {
    const std::uint64_t deleted = bits(*rows.tile, rows.first, rows.count);
    if (deleted == 0) return true;
    std::size_t live = 0;
    for (std::size_t r = 0; r < rows.count; ++r) {
      const bool counts = (deleted >> r & 1u) == 0;
      scales_[r] = counts ? rows.block.scales[r] : 0.0f;
      bias_[r] = !counts ? kLowest : rows.block.bias == nullptr ? 0.0f : rows.block.bias[r];
      live += counts ? 1 : 0;
    }
    // Where the errors of scores are those of scales, a deleted row has none.
    if (rows.block.row_errors == rows.block.scales) rows.block.row_errors = scales_.data();
    rows.block.scales = scales_.data();
    rows.block.bias = bias_.data();
    return live > 0;
  }

  // The biases by which the sketch bounds rows [first, first + count) of a tile, at most SketchScan::kChunkRows.
  const float* bias(const Tile& tile, std::size_t first, std::size_t count) {
    const float* const stored = tile.bias == nullptr ? nullptr : tile.bias + first;
    if (!tile.has_deleted || tombstones_.count(tile.first_row + first, count) == 0) return stored;
    for (std::size_t r = 0; r < count; ++r) {
      bias_[r] = !holds(tile, first + r) ? kLowest : stored == nullptr ? 0.0f : stored[r];
    }
    return bias_.data();
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
