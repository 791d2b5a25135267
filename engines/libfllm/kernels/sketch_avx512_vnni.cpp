// The sketch kernel of AVX-512 VNNI: one dot-product instruction for four dimensions of 16 rows.
#include "kernels/kernels.hpp"
#include "kernels/sketch_avx512.hpp"

namespace fllm::kernels {

namespace {

struct DotProduct {
  // Two-bit numbers are multiplied where they lie in their bytes, without being shifted down: their sums come out
  // 4, 16 and 64 times as large, and whole multiples of that.
  static __m512i sums(const std::uint8_t* block, std::size_t groups, const std::int8_t* limb) {
    __m512i first = _mm512_setzero_si512(), second = first, third = first, fourth = first;
    const __m512i bits = _mm512_set1_epi8(3), bits4 = _mm512_set1_epi8(12), bits16 = _mm512_set1_epi8(48);
    const __m512i bits64 = _mm512_set1_epi8(static_cast<char>(192));
    for (std::size_t g = 0; g < groups; ++g) {
      const __m512i packed = _mm512_loadu_si512(block + g * kSketchGroupBytes);
      prefetch_ahead(block + g * kSketchGroupBytes, kCodesAhead);
      const std::int8_t* part = limb + g * kSketchGroupDims;
      first = _mm512_dpbusd_epi32(first, _mm512_and_si512(packed, bits), limb_lanes(part));
      second = _mm512_dpbusd_epi32(second, _mm512_and_si512(packed, bits4), limb_lanes(part + 4));
      third = _mm512_dpbusd_epi32(third, _mm512_and_si512(packed, bits16), limb_lanes(part + 8));
      fourth = _mm512_dpbusd_epi32(fourth, _mm512_and_si512(packed, bits64), limb_lanes(part + 12));
    }
    const __m512i low = _mm512_add_epi32(first, _mm512_srai_epi32(second, 2));
    return _mm512_add_epi32(low, _mm512_add_epi32(_mm512_srai_epi32(third, 4), _mm512_srai_epi32(fourth, 6)));
  }
};

void bounds(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  bound_blocks<DotProduct>(blocks, item, estimates, uppers);
}

}  // namespace

void fill_sketch_avx512_vnni(Kernels& kernels) { kernels.sketch_bounds = bounds; }

}  // namespace fllm::kernels
