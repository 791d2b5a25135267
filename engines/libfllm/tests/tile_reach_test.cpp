// Bounds of tiles of every level against plain double arithmetic, bit by bit.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "check.hpp"
#include "drawn.hpp"
#include "guarded.hpp"
#include "kernels/kernels.hpp"
#include "machine/cpu.hpp"

namespace {

using namespace fllm::kernels;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// As docs/internals/tiles.md has them.
void expect_reach(const float* extents, float product, double norm, double lost, float& upper, float& promise) {
  const double low = extents[0], high = extents[1], rest = extents[2], bias = extents[3], along = product;
  const double certain = std::max(std::abs(along) - lost, 0.0), farthest = std::max(std::abs(low), std::abs(high));
  const double across = std::sqrt(std::max(norm * norm - certain * certain * (1 - 0x1p-20), 0.0));
  const double score =
      std::max(low * along, high * along) + lost * farthest + across * rest + 0x1p-20 * (farthest + rest) * norm;
  const double bound = score + (bias + 1e-12 * std::abs(bias)), middle = (low + high) / 2 * along + bias;
  const bool known = std::isfinite(product) && std::isfinite(norm) && !std::isnan(bound);
  upper = known ? static_cast<float>(bound) : kInfinity;
  if (known && static_cast<double>(upper) < bound) upper = std::nextafter(upper, kInfinity);
  const auto promised = static_cast<float>(middle + 0.3 * (bound - middle));
  promise = known && !std::isnan(promised) ? promised : kInfinity;
}

void reaches_of_tiles(const Kernels& kernels) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), largest = std::numeric_limits<float>::max();
  const float tiles[][4] = {{-0.5f, 1.5f, 0.75f, 0},
                            {0.25f, 0.5f, 0.1f, -3},
                            {-2, -1, 0.5f, 0.3f},
                            {0, 0, 0, 0},
                            {0, 0, 0, 1e-44f},
                            {0, 0, 0, -1e-44f},
                            {-largest, largest, largest, 0},
                            {-1, 1, kInfinity, 0},
                            {nan, nan, nan, 0},
                            {-1, 1, 0, largest},
                            {1e-40f, 2e-40f, 1e-42f, 0},
                            {1, 2, 0, -largest}};
  for (std::size_t count = 1; count <= 64; count += count < 20 ? 1 : 11) {
    for (const float* extents : tiles) {
      std::vector<float> products = floats(count, -2, 2);
      std::vector<double> norms(count), lost(count);
      for (std::size_t i = 0; i < count; ++i) {
        norms[i] = std::abs(products[i]) * uniform(1, 2);
        lost[i] = norms[i] * 0x1p-17;
      }
      const float strange[] = {kInfinity, -kInfinity, nan, largest, 0.0f};
      for (std::size_t i = 3; i < count; i += 4) products[i] = strange[i / 4 % 5];
      if (count > 5) norms[5] = std::numeric_limits<double>::infinity();
      const Guarded guarded(products.data(), 4 * count);
      std::vector<float> uppers(count), promises(count);
      kernels.tile_reach(guarded.as<float>(), extents, {count, norms.data(), lost.data()}, uppers.data(),
                         promises.data());
      for (std::size_t i = 0; i < count; ++i) {
        float upper, promise;
        expect_reach(extents, products[i], norms[i], lost[i], upper, promise);
        CHECK(std::bit_cast<std::uint32_t>(uppers[i]) == std::bit_cast<std::uint32_t>(upper));
        CHECK(std::bit_cast<std::uint32_t>(promises[i]) == std::bit_cast<std::uint32_t>(promise));
      }
    }
  }
}

}  // namespace

int main() {
  for (const std::string& level : fllm::cpu_levels()) {
    const Kernels* kernels = fllm::kernels::find(level.c_str());
    if (kernels != nullptr) reaches_of_tiles(*kernels);
  }
  return check::result();
}
