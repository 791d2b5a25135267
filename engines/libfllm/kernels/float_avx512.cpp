// Decoding and float32 sums with AVX-512 (F, BW, VL, DQ).
#include "kernels/float_lanes.hpp"
#include "kernels/kernels.hpp"
#include "kernels/lanes_avx512.hpp"

namespace fllm::kernels {

namespace {

struct Fp32 {
  static constexpr std::size_t kBits = 32;
  static constexpr bool kGrouped = false;
  static __m512 load(const std::uint8_t* p, __m512) { return _mm512_loadu_ps(p); }
};

struct Fp16 {
  static constexpr std::size_t kBits = 16;
  static constexpr bool kGrouped = false;
  static __m512 load(const std::uint8_t* p, __m512) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

// An e4m3 number with its fields at their place in a half is 2^8 too small, subnormals included; NaN, whose exponent
// is an ordinary one there, gets the half's largest exponent.
struct Fp8 {
  static constexpr std::size_t kBits = 8;
  static constexpr bool kGrouped = false;
  static __m512 load(const std::uint8_t* p, __m512) {
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i fields = _mm256_srai_epi16(_mm256_slli_epi16(wide, 8), 1);
    const __m256i half = _mm256_and_si256(fields, _mm256_set1_epi16(static_cast<short>(0xbf80)));
    const __m256i seven = _mm256_set1_epi16(0x7f);
    const __mmask16 nan = _mm256_cmpeq_epi16_mask(_mm256_and_si256(wide, seven), seven);
    const __m256i marked = _mm256_or_si256(half, _mm256_maskz_mov_epi16(nan, _mm256_set1_epi16(0x7e00)));
    return _mm512_mul_ps(_mm512_cvtph_ps(marked), _mm512_set1_ps(256.0f));
  }
};

// Eight bytes go to each 128-bit quarter, whose four lanes take two bytes of their own; the nibble shifted into a
// lane's low bits picks its number from a table.
struct Int4 {
  static constexpr std::size_t kBits = 4;
  static constexpr bool kGrouped = true;
  static __m512 load(const std::uint8_t* p, __m512 multiplier) {
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const __m512i spread =
        _mm512_setr_epi64(0x0000000000000000, 0x0000000100000001, 0x0000000200000002, 0x0000000300000003,
                          0x0000000400000004, 0x0000000500000005, 0x0000000600000006, 0x0000000700000007);
    const __m512i shifts = _mm512_set1_epi64(0x0000000400000000);
    const __m512i nibbles = _mm512_srlv_epi32(_mm512_shuffle_epi8(bytes, spread), shifts);
    const __m512 numbers = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_mul_ps(_mm512_permutexvar_ps(nibbles, numbers), multiplier);
  }
};

}  // namespace

void fill_float_avx512(Kernels& kernels) {
  fill_sums<Lanes>(kernels);
  kernels.decode_fp32 = decode<Lanes, Fp32>;
  kernels.decode_fp16 = decode<Lanes, Fp16>;
  kernels.decode_fp8 = decode<Lanes, Fp8>;
  kernels.decode_int4 = decode<Lanes, Int4>;
}

}  // namespace fllm::kernels
