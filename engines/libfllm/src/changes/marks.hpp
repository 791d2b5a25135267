// The tombstones of the next generation while it is made: a bit per stored row (fllm_export/table/tombstones.py).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "format/table.hpp"

namespace fllm::changes {

class Marks {
 public:
  // Those of a table as it is now.
  explicit Marks(const Table& table);

  // Marks rows, by their numbers in scan order, of a table that stores `stored` of them.
  void add(std::span<const std::uint64_t> rows, std::uint64_t stored);

  // Leaves out all rows from number `stored` on.
  void keep(std::uint64_t stored);

  bool holds(std::uint64_t row) const { return row < rows_ && (bits_[row / 8] >> (row % 8) & 1u) != 0; }
  bool changed() const { return changed_; }     // whether they are others than the table's
  std::uint64_t rows() const { return rows_; }  // that have a bit; 0: no row is deleted
  std::uint64_t deleted() const;
  const std::vector<std::uint8_t>& bits() const { return bits_; }

 private:
  std::uint64_t rows_;
  std::vector<std::uint8_t> bits_;  // row r is bit r % 8, the lowest being bit 0, of byte r / 8
  bool changed_ = false;
};

}  // namespace fllm::changes
