// The sketch kernel of AVX2: a block in two halves of eight rows.
#include "kernels/kernels.hpp"
#include "kernels/planes_avx2.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kHalf = 8;

inline __m256 widen_lanes(const std::uint16_t* factors) {
  const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(factors));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}

// The biases of eight rows, zeros where there are none.
inline __m256 bias_lanes(const SketchBlocks& blocks, std::size_t first) {
  if (first + kHalf <= blocks.rows) return _mm256_loadu_ps(blocks.bias + first);
  const int left = first < blocks.rows ? static_cast<int>(blocks.rows - first) : 0;
  const __m256i present = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm256_maskload_ps(blocks.bias + (left == 0 ? 0 : first), present);
}

// Writes the estimates and bounds of eight rows from the integer products of their codes.
inline void finish_half(__m256i dot, const SketchBlocks& blocks, std::size_t first, const SketchItem& item,
                        float* estimates, float* uppers) {
  const std::size_t block = first / kPlaneRows;
  const std::uint16_t* factors = blocks.factors + block * blocks.parts * kPlaneRows + first % kPlaneRows;
  const __m256 scale = widen_lanes(factors);
  __m256 slack = _mm256_add_ps(_mm256_mul_ps(scale, _mm256_set1_ps(item.rounding)),
                               _mm256_mul_ps(widen_lanes(factors + kPlaneRows), _mm256_set1_ps(item.inner)));
  if (blocks.parts == 3) {
    const __m256 outer = widen_lanes(factors + 2 * kPlaneRows);
    slack = _mm256_add_ps(slack, _mm256_mul_ps(outer, _mm256_set1_ps(item.outer)));
  }
  __m256 estimate = _mm256_mul_ps(scale, _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_set1_ps(item.scale)));
  if (blocks.bias != nullptr) estimate = _mm256_add_ps(estimate, bias_lanes(blocks, first));
  const __m256 size = _mm256_add_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), estimate), slack);
  const __m256 raise = _mm256_mul_ps(size, _mm256_set1_ps(kSketchRaise));
  const __m256 raised = _mm256_add_ps(_mm256_add_ps(estimate, slack), raise);
  _mm256_storeu_ps(estimates + first, estimate);
  _mm256_storeu_ps(uppers + first, _mm256_add_ps(raised, _mm256_set1_ps(kSketchTiny)));
}

void bounds(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  const std::size_t block_bytes = blocks.groups * kPlaneBytes;
  const std::size_t count = (blocks.rows + kPlaneRows - 1) / kPlaneRows;
  const __m256i offset = _mm256_set1_epi32((blocks.fine == nullptr ? 3 : 15) * item.limb_sum);
  for (std::size_t block = 0; block < count; ++block) {
    __m256i coarse[1][2], fine[1][2];
    plane_sums<1>(blocks.coarse + block * block_bytes, blocks.groups, {item.limb}, coarse);
    auto& sums = coarse[0];
    if (blocks.fine != nullptr) {
      plane_sums<1>(blocks.fine + block * block_bytes, blocks.groups, {item.limb}, fine);
      for (std::size_t half = 0; half < 2; ++half) {
        sums[half] = _mm256_add_epi32(_mm256_slli_epi32(sums[half], 2), fine[0][half]);
      }
    }
    for (std::size_t half = 0; half < 2; ++half) {
      const __m256i dot = _mm256_sub_epi32(_mm256_slli_epi32(sums[half], 1), offset);
      finish_half(dot, blocks, block * kPlaneRows + half * kHalf, item, estimates, uppers);
    }
  }
}

}  // namespace

void fill_sketch_avx2(Kernels& kernels) { kernels.sketch_bounds = bounds; }

}  // namespace fllm::kernels
