// How one thread scores rows: as they lie (int8, int4row, int2, int1), or decoded to float32 (every other codec).
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "format/table.hpp"
#include "kernels/kernels.hpp"
#include "search/backlog.hpp"
#include "search/query.hpp"
#include "status.hpp"

namespace fllm {

// A block: up to kBlockRows rows of a tile.
struct RowBlock {
  const Tile* tile;
  std::size_t first, count;
  kernels::Block block;
};

class Rows {
 public:
  virtual ~Rows() = default;

  // So many at most make a block.
  virtual std::size_t block_rows() const = 0;

  // Makes rows of a tile the block that the following functions score.
  virtual RowBlock take(const Tile& tile, std::size_t first, std::size_t count) = 0;

  // Writes the float32 scores of the block with a column, and returns what no exact score exceeds: the scores
  // themselves, where they are exact.
  virtual const float* score_one(const RowBlock& rows, std::size_t column, float* scores) = 0;

  // The hits of the block with a group of columns, and their share of `denominator`, unless that is null.
  virtual std::size_t select(const RowBlock& rows, const QueryGroup& group, const kernels::Items& items,
                             const kernels::Denominator* denominator, kernels::Hit* out) = 0;

  // The score that every engine gives this row.
  virtual float exact_score(const RowBlock& rows, std::size_t row, std::size_t column) = 0;

  // Exact scores of rows [first, first + count) of `waiting`, at most kBlockRows, which lie apart. The block is lost.
  virtual void score_apart(const std::vector<Backlog::Row>& waiting, std::size_t first, std::size_t count,
                           std::size_t column, float* scores) {
    for (std::size_t r = 0; r < count; ++r) {
      const Backlog::Row& row = waiting[first + r];
      scores[r] = exact_score(take(*row.span->tile, row.in_tile(), 1), 0, column);
    }
  }
};

// Of the codec's kind.
std::unique_ptr<Rows> make_rows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries);

// Whether all n numbers are finite, or there are none.
bool all_finite(const float* numbers, std::size_t n);

// A row without a finite score, as Error (Status::bundle).
Error not_finite(const Table& table, const Tile& tile, std::size_t row);

std::unique_ptr<Rows> make_int8_rows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries);
std::unique_ptr<Rows> make_plane_rows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries);
std::unique_ptr<Rows> make_decoded_rows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries);

}  // namespace fllm
