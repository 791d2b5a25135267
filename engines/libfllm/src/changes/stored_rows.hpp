// Rows in the form in which a table stores them, in memory: those of users that come, and those of shards that go.
#pragma once

#include <cstdint>
#include <vector>

#include "changes/marks.hpp"
#include "format/table.hpp"
#include "write/codecs.hpp"

namespace fllm::changes {

// Rows as a caller gives them.
struct GivenRows {
  const float* rows = nullptr;  // [n, dim], finite
  const float* bias = nullptr;  // [n], or null where the table has none
  const std::int64_t* ids = nullptr;
  std::size_t n = 0;
};

// Each row lies by itself, also where shards hold blocks.
class StoredRows {
 public:
  explicit StoredRows(const Layout& layout) : layout_(&layout) {}

  std::size_t size() const { return ids_.size(); }
  const std::vector<std::int64_t>& ids() const { return ids_; }
  const std::vector<float>& bias() const { return bias_; }
  const std::vector<float>& scales() const { return scales_; }
  const std::vector<std::uint8_t>& groups() const { return groups_; }

  // The tensor `codes` of a shard of these rows.
  std::vector<std::uint8_t> codes() const;

  // Encodes rows and adds them.
  void encode(const GivenRows& given);

  // Adds the rows of a tile that are not marked.
  void take(const Tile& tile, const Marks& marks);

  // Moves rows [start, stop) of others here.
  void take(const StoredRows& others, std::size_t start, std::size_t stop);

  // The same rows in another order: of each row the number that it has now.
  StoredRows ordered(const std::vector<std::size_t>& order) const;

  // What rows [start, stop) stand for, float32 [stop - start, dim].
  std::vector<float> decoded(std::size_t start, std::size_t stop) const;

 private:
  void grow(std::size_t rows);
  void copy(const StoredRows& others, std::size_t from, std::size_t to);
  void copy_codes(const Tile& tile, std::size_t from, std::size_t to);
  writing::Stored stored();

  const Layout* layout_;
  std::vector<std::uint8_t> codes_, groups_;
  std::vector<float> scales_, bias_;
  std::vector<std::int64_t> ids_;
};

}  // namespace fllm::changes
