#include "whole_item.hpp"

#include <cmath>
#include <cstdlib>
#include <limits>

#include "search/query.hpp"

namespace fllm::tensorrt {

namespace {

constexpr double kInt8Error = 0x1p-20;  // the limbs' sums are exact; then float32
constexpr double kFp8Error = 0x1p-11;   // an assumption (docs/guides/tensorrt.md), for 128 products
constexpr double kFp8Products = 128.0;
constexpr double kVanished = 0x1p-60;  // what products that float32 flushes to zero take from a score

// Balanced digits in [-base/2, base/2), most significant first; the first takes what is left.
void cut(std::int32_t whole, std::int32_t base, std::size_t count, std::int32_t* digits) {
  for (std::size_t i = count; i-- > 1;) {
    const std::int32_t above = static_cast<std::int32_t>(std::floor((whole + base / 2) / static_cast<double>(base)));
    digits[i] = whole - base * above;
    whole = above;
  }
  digits[0] = whole;
}

}  // namespace

WholeItem::WholeItem(Codec codec, const float* z, std::size_t dim) : whole(dim) {
  const Limbs quantised = quantise(z, dim);
  scale = quantised.scale;
  const bool fp8 = codec == Codec::fp8;
  const std::int32_t base = fp8 ? 32 : 128;
  limb_count = fp8 ? 3 : 2;
  limbs.resize(limb_count * dim);
  relative_error = fp8 ? kFp8Error * (1.0 + static_cast<double>(dim) / kFp8Products) : kInt8Error;
  double squares = 0;
  for (std::size_t j = 0; j < dim; ++j) {
    whole[j] = 128 * quantised.high[j] + quantised.low[j];
    std::int32_t digits[3];
    cut(whole[j], base, limb_count, digits);
    double together = 0;
    for (std::size_t limb = 0; limb < limb_count; ++limb) {
      limbs[limb * dim + j] = static_cast<float>(digits[limb]);
      together = base * together + std::abs(digits[limb]);
    }
    squares += together * together;
  }
  magnitude = std::sqrt(squares);
}

double allowance(const WholeItem& item, double reach) {
  if (!item.is_plain() || !std::isfinite(reach)) return std::numeric_limits<double>::infinity();
  return item.relative_error * item.scale * reach * item.magnitude + kVanished;
}

}  // namespace fllm::tensorrt
