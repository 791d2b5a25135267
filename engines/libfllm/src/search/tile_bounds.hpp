// Upper bounds of the scores of whole tiles, and the order that they suggest (docs/internals/tiles.md);
// fllm_export.table.tile_bounds writes what they are made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/table.hpp"
#include "kernels/kernels.hpp"
#include "machine/aligned.hpp"
#include "machine/pool.hpp"
#include "search/query.hpp"

namespace fllm {

class TileBounds {
 public:
  // Bounds every tile of a table that has bounds, for each column.
  TileBounds(const Table& table, const kernels::Kernels& kernels, const std::vector<Column>& columns, Pool& pool);

  // What no score of the tile's rows exceeds, rounded to float32 as they are.
  float upper(std::size_t tile, std::size_t column) const { return uppers_[tile * columns_ + column]; }

  // The `count` tiles that promise the most to a column, the best first; at most all of them.
  std::vector<std::size_t> promising(std::size_t column, std::size_t count) const;

  // All tiles: those first that promise the most to some column. With many columns only the best of each are sought
  // out, and the rest follow as they are stored.
  std::vector<std::size_t> order(Pool& pool);

 private:
  class Block;

  void prepare(const std::vector<Column>& columns);
  void bound(std::size_t first, std::size_t last);
  void bound_block(const Block& block, const float* values, float* sums);
  void finish(std::size_t tile, std::size_t column, std::size_t count, const float* products);
  std::vector<std::size_t> most_promising(std::size_t column, std::size_t count) const;

  const Table& table_;
  const kernels::Kernels& kernels_;
  std::size_t columns_, padded_dim_;
  std::vector<double> norms_, lost_;      // by column, as kernels::TileItems has them
  Aligned<float> one_, many_;             // [columns, padded dim]; by groups of columns, [padded dim, padded columns]
  std::vector<float> uppers_, promises_;  // [tiles, columns]
  std::vector<std::vector<std::size_t>> best_;  // by column, as many as the order needed
};

}  // namespace fllm
