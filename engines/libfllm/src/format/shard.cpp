#include "format/shard.hpp"

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
    std::vector<std::uint64_t> shape{blocks, plane_groups(layout.dim), kernels::kPlaneBytes};
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

std::vector<TensorForm> shard_tensors(const Layout& layout, std::uint64_t rows) {
  const std::uint64_t dim = layout.dim;
  const CodecFacts& codec = facts_of(layout.codec);
  std::vector<TensorForm> tensors{codes_tensor(layout, rows)};
  if (codec.grouped) tensors.push_back({"groups", "U8", {rows, group_bytes(layout.codec, dim)}});
  tensors.push_back({"scales", "F32", {rows}});
  if (layout.bias) tensors.push_back({"bias", "F32", {rows}});
  tensors.push_back({"ids", "I64", {rows}});
  if (layout.tile_bounds) {
    const std::uint64_t tiles = rows / layout.tile_rows + (rows % layout.tile_rows != 0 ? 1 : 0);
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
  require_tensors(tensors, shard_tensors(layout, rows), path);
  Shard shard;
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

Tile Shard::tile(const Layout& layout, std::uint64_t start, std::uint64_t rows, std::uint64_t first_row) const {
  Tile tile;
  tile.rows = static_cast<std::size_t>(rows);
  tile.first_row = first_row;
  tile.codes = codes + start * code_bytes(layout.codec, layout.dim);
  if (groups != nullptr) tile.groups = groups + start * group_bytes(layout.codec, layout.dim);
  tile.scales = scales + start;
  if (bias != nullptr) tile.bias = bias + start;
  tile.ids = ids + start;
  if (extents != nullptr) {
    tile.direction = directions + start / layout.tile_rows * layout.dim;
    tile.extents = extents + start / layout.tile_rows * kTileExtents;
  }
  return tile;
}

}  // namespace fllm
