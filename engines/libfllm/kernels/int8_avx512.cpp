// The int8 kernels of AVX-512 without its dot-product instructions.
#include "kernels/int8_avx512.hpp"

namespace fllm::kernels {

namespace {

struct MultiplyAdd {
  static __m512i add(__m512i sums, __m512i codes, __m512i limb) {
    const __m512i pairs = _mm512_maddubs_epi16(codes, limb);
    return _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
};

}  // namespace

void fill_int8_avx512(Kernels& kernels) {
  kernels.int8_one = one<MultiplyAdd>;
  kernels.int8_many = many<MultiplyAdd>;
}

}  // namespace fllm::kernels
