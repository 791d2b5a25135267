// A shard of any bytes is refused by an Error, or each of its tensors lies within it.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "format/safetensors.hpp"
#include "format/shard.hpp"
#include "status.hpp"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void require_inside(const fllm::Tensor& tensor, const std::uint8_t* data, std::size_t size) {
  require(tensor.data >= data && tensor.bytes <= size);
  require(static_cast<std::size_t>(tensor.data - data) <= size - static_cast<std::size_t>(tensor.bytes));
}

std::uint64_t first_dimension(const fllm::Tensors& tensors, const char* name) {
  const auto found = tensors.find(name);
  return found == tensors.end() || found->second.shape.empty() ? 0 : found->second.shape[0];
}

// What lies at `from` must end where the tensor does.
void require_end(const fllm::Tensors& tensors, const char* name, const void* from, std::uint64_t bytes) {
  const fllm::Tensor& tensor = tensors.at(name);
  require(static_cast<const std::uint8_t*>(from) + bytes == tensor.data + tensor.bytes);
}

void require_sketch(const fllm::Tensors& tensors, const fllm::Sketch& sketch, std::uint64_t rows) {
  const std::uint64_t blocks = (rows + fllm::kernels::kPlaneRows - 1) / fllm::kernels::kPlaneRows;
  const std::uint64_t codes = blocks * (sketch.dims / fllm::kernels::kPlaneDims) * fllm::kernels::kPlaneBytes;
  const std::uint64_t factors = blocks * sketch.parts() * fllm::kernels::kPlaneRows * sizeof(std::uint16_t);
  require_end(tensors, "sketch_coarse", sketch.coarse, codes);
  require_end(tensors, "sketch_fine", sketch.fine, codes);
  require_end(tensors, "sketch_coarse_factors", sketch.coarse_factors, factors);
  require_end(tensors, "sketch_fine_factors", sketch.fine_factors, factors);
  require_end(tensors, "sketch_basis", sketch.basis, sketch.dims * sketch.dim * sizeof(float));
}

// Rows and dimensions that a table would have whose codec stores this shard; 0 rows where there is none such.
struct Shape {
  std::uint64_t rows = 0, dim = 0;

  Shape(const fllm::Tensors& tensors, const fllm::CodecFacts& facts) {
    const auto codes = tensors.find("codes");
    if (codes == tensors.end()) return;
    const std::vector<std::uint64_t>& shape = codes->second.shape;
    if (facts.planes == 0 && shape.size() == 2) {
      rows = shape[0];
      dim = shape[1] * (facts.bits < 8 ? 8 / facts.bits : 1);
    } else if (facts.planes > 0 && shape.size() > 2) {
      rows = first_dimension(tensors, "ids");
      dim = shape[shape.size() - 2] * fllm::kernels::kPlaneDims * (facts.bits == 1 ? 2 : 1);
    }
  }

  std::uint64_t code_bytes(const fllm::CodecFacts& facts) const {
    const std::uint64_t step = facts.planes > 0 ? fllm::kernels::kPlaneRows : 1;
    return (rows + step - 1) / step * step * fllm::code_bytes(facts.codec, static_cast<std::size_t>(dim));
  }
};

// As a table of this codec would use the shard: the last tile must end with the tensors. Whether there are bounds and a
// sketch, and of how many tiles and dimensions, the shard itself says.
void view(const fllm::Tensors& tensors, const fllm::CodecFacts& facts, bool bias) {
  const Shape shape(tensors, facts);
  fllm::Layout layout;
  layout.codec = facts.codec;
  layout.bias = bias;
  layout.dim = static_cast<std::size_t>(shape.dim);
  const std::uint64_t rows = shape.rows, tiles = first_dimension(tensors, "tile_extents");
  layout.tile_bounds = tiles > 0;
  layout.tile_ends = first_dimension(tensors, "tile_ends") > 0;
  layout.tile_rows = tiles > 0 && rows > 0 && !layout.tile_ends ? (rows - 1) / tiles + 1 : 1024;
  layout.sketch_dims = static_cast<std::size_t>(first_dimension(tensors, "sketch_basis"));
  try {
    const fllm::Shard shard = fllm::Shard::view(tensors, layout, rows, "shard");
    if (layout.sketch_dims > 0) require_sketch(tensors, shard.sketch, rows);
    if (layout.tile_bounds && rows > 0) {
      std::uint64_t start = 0, rows_of_last = 0;
      for (std::uint64_t number = 0; number < shard.tiles; ++number, start += rows_of_last) {
        rows_of_last = shard.tile(layout, number, start, start).rows;
        require(rows_of_last >= 1 && rows_of_last <= fllm::kUnevenTile * layout.tile_rows);
      }
      require(start == rows);
      const fllm::Tile tile = shard.tile(layout, shard.tiles - 1, start - rows_of_last, start - rows_of_last);
      require_end(tensors, "tile_directions", tile.direction, layout.dim * sizeof(float));
      require_end(tensors, "tile_extents", tile.extents, fllm::kTileExtents * sizeof(float));
    }
    require_end(tensors, "codes", shard.codes, shape.code_bytes(facts));
    require_end(tensors, "ids", shard.ids, rows * sizeof(std::int64_t));
  } catch (const fllm::Error& error) {
    require(error.status() == fllm::Status::bundle);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const fllm::Tensors tensors = fllm::read_tensors(data, size, "shard");
    for (const auto& [name, tensor] : tensors) require_inside(tensor, data, size);
    for (const fllm::CodecFacts& facts : fllm::kCodecs) {
      for (const bool bias : {false, true}) view(tensors, facts, bias);
    }
  } catch (const fllm::Error& error) {
    require(error.status() == fllm::Status::bundle);
  }
  return 0;
}
