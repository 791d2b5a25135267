#include "format/shard.hpp"

#include <algorithm>
#include <bit>
#include <vector>

#include "status.hpp"

namespace fllm {

namespace {

static_assert(std::endian::native == std::endian::little, "shards are little-endian and used in place");

// The sketch of a shard, in blocks of rows.
std::vector<TensorForm> sketch_tensors(const Layout& layout, std::uint64_t rows) {
  const std::uint64_t blocks = (rows + kernels::kPlaneRows - 1) / kernels::kPlaneRows;
  const std::uint64_t dims = layout.sketch_dims, parts = dims >= layout.dim ? 2 : 3;
  const std::vector<std::uint64_t> codes{blocks, dims / kernels::kPlaneDims, kernels::kPlaneBytes};
  const std::vector<std::uint64_t> factors{blocks, parts, kernels::kPlaneRows};
  return {{"sketch_coarse", "U8", codes},
          {"sketch_coarse_factors", "U16", factors},
          {"sketch_fine", "U8", codes},
          {"sketch_fine_factors", "U16", factors},
          {"sketch_basis", "F32", {dims, layout.dim}}};
}

// The tensor `codes`.
TensorForm codes_tensor(const Layout& layout, std::uint64_t rows) {
  const CodecFacts& codec = facts_of(layout.codec);
  if (codec.planes > 0) {
    const std::uint64_t blocks = (rows + kernels::kPlaneRows - 1) / kernels::kPlaneRows;
    std::vector<std::uint64_t> shape{blocks, plane_places(layout.codec, layout.dim), kernels::kPlaneBytes};
    if (codec.planes > 1) shape.insert(shape.begin() + 1, codec.planes);
    return {"codes", codec.dtype, std::move(shape)};
  }
  // Numbers of less than a byte are packed.
  const std::uint64_t columns = codec.bits < 8 ? code_bytes(layout.codec, layout.dim) : layout.dim;
  return {"codes", codec.dtype, {rows, columns}};
}

std::string names(const std::vector<TensorForm>& tensors) {
  std::string text;
  for (const TensorForm& tensor : tensors) text += (text.empty() ? "" : ", ") + tensor.name;
  return text;
}

template <typename T>
const T* pointer(const Tensors& tensors, const char* name) {
  return reinterpret_cast<const T*>(tensors.at(name).data);  // aligned: the reader lets tensors start on pages alone
}

std::uint64_t full_tiles(const Layout& layout, std::uint64_t rows) {
  return rows / layout.tile_rows + (rows % layout.tile_rows != 0 ? 1 : 0);
}

// The number of tiles whose ends a shard says itself; 0 where it does not. Throws Error (Status::bundle).
std::uint64_t uneven_tiles(const Tensors& tensors, const Layout& layout, const std::string& path) {
  const auto found = layout.tile_ends ? tensors.find("tile_ends") : tensors.end();
  if (found == tensors.end()) return 0;
  const Tensor& tensor = found->second;
  if (tensor.dtype == "I64" && tensor.shape.size() == 1 && tensor.shape[0] > 0) return tensor.shape[0];
  throw Error(Status::bundle,
              sentence(path + ": tensor `tile_ends` is " + described(tensor.dtype, tensor.shape), "I64 [n]"));
}

// Tiles of uneven size are whole blocks, no longer than the table says, and hold all rows.
void require_ends(const Shard& shard, const Layout& layout, const std::string& path) {
  const std::uint64_t most = kUnevenTile * layout.tile_rows;
  std::uint64_t start = 0;
  for (std::uint64_t tile = 0; tile < shard.tiles; ++tile) {
    const std::int64_t end = shard.tile_ends[tile];
    const bool ascends = end > 0 && static_cast<std::uint64_t>(end) > start;
    if (!ascends || static_cast<std::uint64_t>(end) > shard.rows || start % kernels::kPlaneRows != 0 ||
        static_cast<std::uint64_t>(end) - start > most) {
      throw Error(Status::bundle, sentence(path + ": tile " + std::to_string(tile) + " is rows " +
                                               std::to_string(start) + " to " + std::to_string(end),
                                           "ends that ascend in multiples of 16, by at most " + std::to_string(most),
                                           "Build the table again"));
    }
    start = static_cast<std::uint64_t>(end);
  }
  if (start == shard.rows) return;
  throw Error(Status::bundle, sentence(path + ": the last of " + std::to_string(shard.tiles) + " tiles ends at row " +
                                           std::to_string(start),
                                       "row " + std::to_string(shard.rows)));
}

// Throws Error (Status::bundle) when a tensor is missing or of another dtype or shape.
void require_tensors(const Tensors& tensors, const std::vector<TensorForm>& wanted, const std::string& path) {
  for (const TensorForm& expected : wanted) {
    const auto found = tensors.find(expected.name);
    if (found == tensors.end()) {
      throw Error(Status::bundle, sentence(path + " has no tensor `" + expected.name + "`", names(wanted)));
    }
    const Tensor& tensor = found->second;
    if (tensor.dtype != expected.dtype || tensor.shape != expected.shape) {
      throw Error(Status::bundle,
                  sentence(path + ": tensor `" + expected.name + "` is " + described(tensor.dtype, tensor.shape),
                           described(expected.dtype, expected.shape)));
    }
  }
}

}  // namespace

std::vector<TensorForm> shard_tensors(const Layout& layout, std::uint64_t rows, std::uint64_t uneven_tiles) {
  const std::uint64_t dim = layout.dim;
  const CodecFacts& codec = facts_of(layout.codec);
  std::vector<TensorForm> tensors{codes_tensor(layout, rows)};
  if (codec.grouped) tensors.push_back({"groups", "U8", {rows, group_bytes(layout.codec, dim)}});
  tensors.push_back({"scales", "F32", {rows}});
  if (layout.bias) tensors.push_back({"bias", "F32", {rows}});
  tensors.push_back({"ids", "I64", {rows}});
  if (layout.tile_bounds) {
    const std::uint64_t tiles = uneven_tiles > 0 ? uneven_tiles : full_tiles(layout, rows);
    if (uneven_tiles > 0) tensors.push_back({"tile_ends", "I64", {tiles}});
    tensors.push_back({"tile_directions", "F32", {tiles, dim}});
    tensors.push_back({"tile_extents", "F32", {tiles, kTileExtents}});
  }
  if (layout.sketch_dims > 0) {
    for (TensorForm& tensor : sketch_tensors(layout, rows)) tensors.push_back(std::move(tensor));
  }
  return tensors;
}

Shard Shard::view_refinement(const Tensors& tensors, const Layout& layout, std::uint64_t rows,
                             const std::string& path) {
  require_tensors(tensors, {codes_tensor(layout, rows), {"scales", "F32", {rows}}}, path);
  Shard shard;
  shard.codes = pointer<std::uint8_t>(tensors, "codes");
  shard.scales = pointer<float>(tensors, "scales");
  return shard;
}

Shard Shard::view(const Tensors& tensors, const Layout& layout, std::uint64_t rows, const std::string& path) {
  const std::uint64_t uneven = uneven_tiles(tensors, layout, path);
  require_tensors(tensors, shard_tensors(layout, rows, uneven), path);
  Shard shard;
  shard.rows = rows;
  shard.tiles = uneven > 0 ? uneven : full_tiles(layout, rows);
  if (uneven > 0) {
    shard.tile_ends = pointer<std::int64_t>(tensors, "tile_ends");
    require_ends(shard, layout, path);
  }
  shard.codes = pointer<std::uint8_t>(tensors, "codes");
  if (facts_of(layout.codec).grouped) shard.groups = pointer<std::uint8_t>(tensors, "groups");
  shard.scales = pointer<float>(tensors, "scales");
  if (layout.bias) shard.bias = pointer<float>(tensors, "bias");
  shard.ids = pointer<std::int64_t>(tensors, "ids");
  if (layout.tile_bounds) {
    shard.directions = pointer<float>(tensors, "tile_directions");
    shard.extents = pointer<float>(tensors, "tile_extents");
  }
  if (layout.sketch_dims > 0) {
    shard.sketch = {layout.dim,
                    layout.sketch_dims,
                    pointer<float>(tensors, "sketch_basis"),
                    0,
                    pointer<std::uint8_t>(tensors, "sketch_coarse"),
                    pointer<std::uint16_t>(tensors, "sketch_coarse_factors"),
                    pointer<std::uint8_t>(tensors, "sketch_fine"),
                    pointer<std::uint16_t>(tensors, "sketch_fine_factors")};
  }
  return shard;
}

Tile Shard::tile(const Layout& layout, std::uint64_t number, std::uint64_t start, std::uint64_t first_row) const {
  Tile tile;
  tile.rows = static_cast<std::size_t>(tile_ends != nullptr ? static_cast<std::uint64_t>(tile_ends[number]) - start
                                                            : std::min(layout.tile_rows, rows - start));
  tile.first_row = first_row;
  tile.codes = codes + start * code_bytes(layout.codec, layout.dim);
  if (groups != nullptr) tile.groups = groups + start * group_bytes(layout.codec, layout.dim);
  tile.scales = scales + start;
  if (bias != nullptr) tile.bias = bias + start;
  tile.ids = ids + start;
  if (extents != nullptr) {
    tile.direction = directions + number * layout.dim;
    tile.extents = extents + number * kTileExtents;
  }
  return tile;
}

}  // namespace fllm
