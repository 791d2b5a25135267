// A shard of any bytes is refused by an Error, or each of its tensors lies within it.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "safetensors.hpp"
#include "shard.hpp"
#include "status.hpp"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void require_inside(const fllm::Tensor& tensor, const std::uint8_t* data, std::size_t size) {
  require(tensor.data >= data && tensor.bytes <= size);
  require(static_cast<std::size_t>(tensor.data - data) <= size - static_cast<std::size_t>(tensor.bytes));
}

// As a table of this codec would use the shard: the last tile must end with the tensors.
void view(const fllm::Tensors& tensors, fllm::Codec codec, bool bias) {
  const auto codes = tensors.find("codes");
  if (codes == tensors.end() || codes->second.shape.size() != 2) return;
  fllm::Layout layout;
  layout.codec = codec;
  layout.bias = bias;
  layout.dim = static_cast<std::size_t>(codes->second.shape[1]) * (codec == fllm::Codec::int4 ? 2 : 1);
  const std::uint64_t rows = codes->second.shape[0];
  try {
    const fllm::Shard shard = fllm::Shard::view(tensors, layout, rows, "shard");
    const fllm::Tile tile = shard.tile(layout, rows, 0, rows);
    require(tile.codes == codes->second.data + codes->second.bytes);
    const fllm::Tensor& ids = tensors.at("ids");
    require(reinterpret_cast<const std::uint8_t*>(tile.ids) == ids.data + ids.bytes);
  } catch (const fllm::Error& error) {
    require(error.status() == fllm::Status::bundle);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const fllm::Tensors tensors = fllm::read_tensors(data, size, "shard");
    for (const auto& [name, tensor] : tensors) require_inside(tensor, data, size);
    for (const fllm::Codec codec : {fllm::Codec::fp32, fllm::Codec::fp16, fllm::Codec::int8, fllm::Codec::fp8,
                                    fllm::Codec::int4}) {
      for (const bool bias : {false, true}) view(tensors, codec, bias);
    }
  } catch (const fllm::Error& error) {
    require(error.status() == fllm::Status::bundle);
  }
  return 0;
}
