// The sketch kernel in plain C++: the definition that the others are held to.
#include <cstring>

#include "kernels/kernels.hpp"
#include "kernels/planes_scalar.hpp"

namespace fllm::kernels {

namespace {

float widen(std::uint16_t bfloat) {
  const std::uint32_t bits = static_cast<std::uint32_t>(bfloat) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

void bounds(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  const std::size_t block_bytes = blocks.groups * kPlaneBytes;
  const std::size_t lanes = (blocks.rows + kPlaneRows - 1) / kPlaneRows * kPlaneRows;
  for (std::size_t r = 0; r < lanes; ++r) {
    const std::size_t block = r / kPlaneRows, lane = r % kPlaneRows;
    const std::uint16_t* factors = blocks.factors + block * blocks.parts * kPlaneRows + lane;
    const std::int32_t upper = row_sum(blocks.coarse + block * block_bytes, lane, blocks.groups, item.limb);
    std::int32_t dot = 2 * upper - 3 * item.limb_sum;
    if (blocks.fine != nullptr) {
      const std::int32_t lower = row_sum(blocks.fine + block * block_bytes, lane, blocks.groups, item.limb);
      dot = 2 * (4 * upper + lower) - 15 * item.limb_sum;
    }
    const float scale = widen(factors[0]);
    float slack = scale * item.rounding + widen(factors[kPlaneRows]) * item.inner;
    if (blocks.parts == 3) slack = slack + widen(factors[2 * kPlaneRows]) * item.outer;
    float estimate = scale * (static_cast<float>(dot) * item.scale);
    if (blocks.bias != nullptr && r < blocks.rows) estimate = estimate + blocks.bias[r];
    const float bound = estimate + slack;
    estimates[r] = estimate;
    uppers[r] = bound + ((estimate < 0 ? -estimate : estimate) + slack) * kSketchRaise + kSketchTiny;
  }
}

}  // namespace

void fill_sketch_scalar(Kernels& kernels) { kernels.sketch_bounds = bounds; }

}  // namespace fllm::kernels
