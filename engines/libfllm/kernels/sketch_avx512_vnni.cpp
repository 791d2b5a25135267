// The sketch kernel of AVX-512 VNNI.
#include "kernels/kernels.hpp"
#include "kernels/planes_avx512_vnni.hpp"
#include "kernels/sketch_avx512.hpp"

namespace fllm::kernels {

namespace {

void bounds(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  bound_blocks<DotProduct>(blocks, item, estimates, uppers);
}

}  // namespace

void fill_sketch_avx512_vnni(Kernels& kernels) { kernels.sketch_bounds = bounds; }

}  // namespace fllm::kernels
