// A sample of a table's rows that lie side by side, by which softmax denominators are estimated
// (docs/internals/log_probabilities.md). fllm_export.engines.panel draws the same rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/table.hpp"
#include "machine/aligned.hpp"

namespace fllm {

// The stored rows, in scan order, are cut into equal parts, and one row is drawn from each by a hash of the part's
// number. A part's row has the slot of its number, empty where the row is deleted or lies beyond the last one.
class Panel {
 public:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};

  // Of a table with at most so many stored rows the sum over every row takes no longer than a panel.
  static constexpr std::uint64_t kSummedRows = 16384;

  // Reads the rows drawn, at most 65,536.
  explicit Panel(const Table& table);

  std::size_t slots() const { return rows_.size(); }
  std::uint64_t part_rows() const { return part_rows_; }

  // The number of a slot's row in the table, or kEmpty; ascending.
  std::uint64_t row(std::size_t slot) const { return rows_[slot]; }
  // Slots without a row, ascending.
  const std::vector<std::uint32_t>& empty() const { return empty_; }
  // The slot of the part that a row of the table lies in.
  std::size_t slot_of(std::uint64_t row) const { return static_cast<std::size_t>(row / part_rows_); }

  // The rows as a tile without ids, to be scored like any other; empty slots hold zeros.
  const Tile& tile() const { return tile_; }

 private:
  void draw(const Table& table);
  void copy(const Layout& layout, const Tile& from, std::size_t row, std::size_t slot);
  void copy_planes(const Layout& layout, const Tile& from, std::size_t row, std::size_t slot);

  std::uint64_t part_rows_;
  std::vector<std::uint64_t> rows_;
  std::vector<std::uint32_t> empty_;
  Aligned<std::uint8_t> codes_, groups_;  // as the codec lays rows out
  Aligned<float> scales_, bias_;
  Tile tile_;
};

}  // namespace fllm
