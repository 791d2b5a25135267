// The sketch kernel of AVX-512 without its dot-product instructions.
#include "kernels/sketch_avx512.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

void bounds(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  bound_blocks<MultiplyAdd>(blocks, item, estimates, uppers);
}

}  // namespace

void fill_sketch_avx512(Kernels& kernels) { kernels.sketch_bounds = bounds; }

}  // namespace fllm::kernels
