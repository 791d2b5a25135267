// The int8 kernels of AVX-512 with its dot-product instructions (VNNI).
#include "kernels/int8_avx512.hpp"

namespace fllm::kernels {

namespace {

struct DotProduct {
  static __m512i add(__m512i sums, __m512i codes, __m512i limb) { return _mm512_dpbusd_epi32(sums, codes, limb); }
};

}  // namespace

void fill_int8_avx512_vnni(Kernels& kernels) {
  kernels.int8_one = one<DotProduct>;
  kernels.int8_many = many<DotProduct>;
}

}  // namespace fllm::kernels
