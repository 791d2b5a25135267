// One shard: the tensors of a file, as the table describes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "format/safetensors.hpp"
#include "format/table.hpp"

namespace fllm {

// A tensor of a shard, as its header must describe it.
struct TensorForm {
  std::string name, dtype;
  std::vector<std::uint64_t> shape;
};

// The tensors of a shard of so many rows, in file order. It has so many tiles of uneven size, or, with 0, none of them.
std::vector<TensorForm> shard_tensors(const Layout& layout, std::uint64_t rows, std::uint64_t uneven_tiles = 0);

// Pointers to the rows of a shard's tensors; null where the table has none.
struct Shard {
  std::uint64_t rows = 0, tiles = 0;
  const std::int64_t* tile_ends = nullptr;  // [tiles]; null where all tiles but the last are full
  const std::uint8_t* codes = nullptr;
  const std::uint8_t* groups = nullptr;
  const float* scales = nullptr;
  const float* bias = nullptr;
  const std::int64_t* ids = nullptr;
  const float* directions = nullptr;  // [tiles, dim]
  const float* extents = nullptr;     // [tiles, kTileExtents]
  Sketch sketch;

  // Throws Error (Status::bundle) when a tensor is missing or is not of the dtype and shape that the table demands.
  static Shard view(const Tensors& tensors, const Layout& layout, std::uint64_t rows, const std::string& path);

  // The same for a file of refinement rows, of which the layout says codec and dimension: codes and scales alone.
  static Shard view_refinement(const Tensors& tensors, const Layout& layout, std::uint64_t rows,
                               const std::string& path);

  // Tile `number`, which begins with row `start`; `first_row` is the number of that row in the table. Without its
  // sketch.
  Tile tile(const Layout& layout, std::uint64_t number, std::uint64_t start, std::uint64_t first_row) const;
};

}  // namespace fllm
