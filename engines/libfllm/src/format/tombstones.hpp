// Which stored rows of a table are deleted: one bit per row, from a file of its own (docs/reference/format.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fllm {

// The entry `tombstones` of table.json.
struct TombstonesEntry {
  std::string name;
  std::uint64_t rows = 0;     // stored rows that have a bit; later ones are not deleted
  std::uint64_t deleted = 0;  // bits that are set; 0: the table has no tombstones
  std::uint64_t bytes = 0;
};

class Tombstones {
 public:
  static constexpr std::size_t kWordRows = 64;

  Tombstones() = default;  // no row is deleted

  // Reads the file of an entry. Throws Error (Status::bundle) when it is missing, damaged, or not as the entry says.
  Tombstones(const std::string& directory, const TombstonesEntry& entry);

  bool empty() const { return words_.empty(); }

  bool holds(std::uint64_t row) const {
    const std::uint64_t word = row / kWordRows;
    return word < words_.size() && (words_[word] >> (row % kWordRows) & 1u) != 0;
  }

  // The bits of rows [row, row + 64).
  std::uint64_t word(std::uint64_t row) const;

  // The tombstones of rows [first, first + rows) alone, counted from 0; empty where none of them is deleted.
  Tombstones slice(std::uint64_t first, std::uint64_t rows) const;

  // How many of rows [first, first + rows) are deleted.
  std::uint64_t count(std::uint64_t first, std::uint64_t rows) const;

 private:
  std::vector<std::uint64_t> words_;
};

}  // namespace fllm
