#include "shard.hpp"

#include <bit>
#include <vector>

#include "status.hpp"

namespace fllm {

namespace {

static_assert(std::endian::native == std::endian::little, "shards are little-endian and used in place");

struct Expected {
  std::string name, dtype;
  std::vector<std::uint64_t> row;  // shape of one row
};

std::vector<Expected> expected_tensors(const Layout& layout) {
  const std::uint64_t dim = layout.dim;
  std::vector<Expected> tensors;
  switch (layout.codec) {
    case Codec::fp32: tensors.push_back({"codes", "F32", {dim}}); break;
    case Codec::fp16: tensors.push_back({"codes", "F16", {dim}}); break;
    case Codec::int8: tensors.push_back({"codes", "I8", {dim}}); break;
    case Codec::fp8: tensors.push_back({"codes", "F8_E4M3", {dim}}); break;
    case Codec::int4:
      tensors.push_back({"codes", "U8", {code_bytes(Codec::int4, dim)}});
      tensors.push_back({"groups", "U8", {group_bytes(Codec::int4, dim)}});
      break;
  }
  tensors.push_back({"scales", "F32", {}});
  if (layout.bias) tensors.push_back({"bias", "F32", {}});
  tensors.push_back({"ids", "I64", {}});
  return tensors;
}

std::string names(const std::vector<Expected>& tensors) {
  std::string text;
  for (const Expected& tensor : tensors) text += (text.empty() ? "" : ", ") + tensor.name;
  return text;
}

template <typename T>
const T* pointer(const Tensors& tensors, const char* name) {
  return reinterpret_cast<const T*>(tensors.at(name).data);  // aligned: the reader lets tensors start on pages alone
}

}  // namespace

Shard Shard::view(const Tensors& tensors, const Layout& layout, std::uint64_t rows, const std::string& path) {
  const std::vector<Expected> wanted = expected_tensors(layout);
  for (const Expected& expected : wanted) {
    const auto found = tensors.find(expected.name);
    if (found == tensors.end()) {
      throw Error(Status::bundle, sentence(path + " has no tensor `" + expected.name + "`", names(wanted)));
    }
    std::vector<std::uint64_t> shape{rows};
    shape.insert(shape.end(), expected.row.begin(), expected.row.end());
    const Tensor& tensor = found->second;
    if (tensor.dtype != expected.dtype || tensor.shape != shape) {
      throw Error(Status::bundle, sentence(path + ": tensor `" + expected.name + "` is " +
                                               described(tensor.dtype, tensor.shape),
                                           described(expected.dtype, shape)));
    }
  }
  Shard shard;
  shard.codes = pointer<std::uint8_t>(tensors, "codes");
  if (layout.codec == Codec::int4) shard.groups = pointer<std::uint8_t>(tensors, "groups");
  shard.scales = pointer<float>(tensors, "scales");
  if (layout.bias) shard.bias = pointer<float>(tensors, "bias");
  shard.ids = pointer<std::int64_t>(tensors, "ids");
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
  return tile;
}

}  // namespace fllm
