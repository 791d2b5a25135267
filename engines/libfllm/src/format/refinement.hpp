// The refinement rows of a table, in files of their own that are mapped in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "format/shard.hpp"
#include "format/table.hpp"
#include "machine/mapping.hpp"

namespace fllm {

// Immutable after construction. Only the pages of rows that are read come into memory.
class Refinement {
 public:
  struct Row {
    const std::uint8_t* codes;
    const float* scale;
    const float* bias;  // null when the table has none
  };

  // `shards` are those of the table, whose biases are these rows' too. Throws Error (Status::bundle) for files that are
  // missing, damaged or not as the table describes them.
  Refinement(const std::string& directory, const Layout& layout, const std::vector<Shard>& shards);

  // What the rows are scored by: the codec, the dimension and whether there are biases.
  const Layout& layout() const { return rows_layout_; }
  std::size_t row_bytes() const { return row_bytes_; }

  // By the row's number in the table, in scan order.
  Row row(std::uint64_t number) const;

  // Asks the system to bring the pages of some rows in, all at once, unless a few of them tell that they are there.
  void prefetch(const std::vector<std::uint64_t>& rows) const;

 private:
  struct File {
    std::unique_ptr<Mapping> mapping;
    std::uint64_t first_row;
    const std::uint8_t* codes;
    const float* scales;
    const float* bias;
  };

  const File& file_of(std::uint64_t row) const;
  bool prefetch_row(std::uint64_t number) const;

  Layout rows_layout_;
  std::size_t row_bytes_;
  std::vector<File> files_;
};

}  // namespace fllm
