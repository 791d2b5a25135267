#include "changes/marks.hpp"

#include <algorithm>
#include <bit>

namespace fllm::changes {

Marks::Marks(const Table& table)
    : rows_(table.layout().tombstones.deleted > 0 ? table.layout().tombstones.rows : 0), bits_((rows_ + 7) / 8) {
  for (std::size_t byte = 0; byte < bits_.size(); ++byte) {
    bits_[byte] = static_cast<std::uint8_t>(table.tombstones().word(8 * byte));
  }
}

void Marks::add(std::span<const std::uint64_t> rows, std::uint64_t stored) {
  if (rows.empty()) return;
  changed_ = true;
  rows_ = stored;
  bits_.resize((stored + 7) / 8);
  for (const std::uint64_t row : rows) bits_[row / 8] = static_cast<std::uint8_t>(bits_[row / 8] | 1u << row % 8);
}

void Marks::keep(std::uint64_t stored) {
  if (stored >= rows_) return;
  changed_ = true;
  rows_ = stored;
  bits_.resize((stored + 7) / 8);
  if (stored % 8 != 0) bits_.back() = static_cast<std::uint8_t>(bits_.back() & ((1u << stored % 8) - 1));
  if (deleted() > 0) return;
  rows_ = 0;
  bits_.clear();
}

std::uint64_t Marks::deleted() const {
  std::uint64_t found = 0;
  for (const std::uint8_t byte : bits_) found += static_cast<std::uint64_t>(std::popcount(byte));
  return found;
}

}  // namespace fllm::changes
