// One pass over a table: the columns of some searches, cut into spans of rows that the pool's threads take in turn.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "format/table.hpp"
#include "machine/pool.hpp"
#include "search/best.hpp"
#include "search/denominator.hpp"
#include "search/query.hpp"
#include "search/search.hpp"
#include "search/tile_bounds.hpp"

namespace fllm {

// Rows of one tile that one thread scores together.
struct Span {
  const Tile* tile;
  std::size_t first, rows;
};

class Pass {
 public:
  // All columns want the same mode, the same kind of log-probabilities and the same exactness.
  Pass(const Table& table, const kernels::Kernels& kernels, std::vector<Column> columns);

  // Scores the table. The answers are those of the columns, in order. A search that was cancelled has incomplete ones.
  std::vector<ItemAnswer> run(Pool& pool);

  const Table& table() const { return table_; }
  const kernels::Kernels& kernels() const { return kernels_; }
  const Queries& queries() const { return queries_; }
  const std::vector<Column>& columns() const { return columns_; }
  bool wants_denominator() const { return wants_denominator_; }
  bool samples() const { return samples_; }
  bool uses_sketch() const { return uses_sketch_; }

  // Whether no row of a tile can reach `threshold`, so that the tile need not be read.
  bool rules_out(const Tile& tile, std::size_t column, float threshold) const;

  // The best K-th key that any thread knows of a column: a row below it cannot be among the K best.
  float shared_threshold(std::size_t column) const { return shared_[column].load(std::memory_order_relaxed); }
  void share_threshold(std::size_t column, float threshold);

 private:
  class Turns;

  std::vector<Span> cut_spans(Pool& pool);
  // What one thread scores between two looks at the clock.
  std::size_t rows_of_a_turn() const;
  ItemAnswer merge(std::size_t column, const std::vector<std::unique_ptr<class Worker>>& workers,
                   const Turns& turns) const;

  const Table& table_;
  const kernels::Kernels& kernels_;
  std::vector<Column> columns_;
  bool wants_denominator_, samples_, uses_sketch_;
  Queries queries_;
  std::vector<std::atomic<float>> shared_;
  std::optional<TileBounds> bounds_;
};

}  // namespace fllm
