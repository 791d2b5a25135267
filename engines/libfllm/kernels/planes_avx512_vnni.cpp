// The kernel of rows in bit planes of AVX-512 VNNI.
#include "kernels/planes_avx512_vnni.hpp"
#include "kernels/kernels.hpp"
#include "kernels/planes_one_avx512.hpp"

namespace fllm::kernels {

void fill_planes_avx512_vnni(Kernels& kernels) { kernels.planes_one = one_of<DotProduct>; }

}  // namespace fllm::kernels
