// One pass over a table: the columns of some searches, cut into spans of rows that the pool's threads take in turn.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "format/table.hpp"
#include "machine/pool.hpp"
#include "search/panel.hpp"
#include "search/pass_facts.hpp"
#include "search/query.hpp"
#include "search/search.hpp"
#include "search/tile_bounds.hpp"
#include "search/worker.hpp"

namespace fllm {

class Pass {
 public:
  // All columns want the same mode, the same kind of log-probabilities and the same exactness.
  Pass(const Table& table, const kernels::Kernels& kernels, std::vector<Column> columns);

  // Whether a search sums rows up as they are scored; the columns of a pass agree on it. Otherwise it has no
  // denominator, or an estimate.
  static bool sums_rows(const Table& table, const Search& search);

  // Scores the table. The answers are those of the columns, in order. A search that was cancelled has incomplete ones.
  // `panel` makes the table's panel or has it; it is called where log-probabilities are estimated.
  std::vector<ItemAnswer> run(Pool& pool, const std::function<const Panel&()>& panel);

 private:
  class Turns;

  // Whether no row of a tile can reach `threshold`, so that the tile need not be read.
  bool rules_out(std::size_t tile, std::size_t column, float threshold) const;
  std::size_t number_of(const Tile& tile) const {
    return static_cast<std::size_t>(&tile - facts_.table.tiles().data());
  }

  std::vector<Span> cut_spans(Pool& pool);
  // What one thread scores between two looks at the clock.
  std::size_t rows_of_a_turn() const;
  ItemAnswer merge(std::size_t column, const std::vector<std::unique_ptr<Worker>>& workers, const Turns& turns) const;

  PassFacts facts_;
  std::optional<TileBounds> bounds_;
};

}  // namespace fllm
