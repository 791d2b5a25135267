// Known answers of Philox, the shape of the noise, and the same bits from every level.
#include "search/gumbel.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "guarded.hpp"
#include "kernels/kernels.hpp"
#include "machine/cpu.hpp"

namespace {

void known_answers() {
  // Random123's kat_vectors: counter 0 and key 0 give 6627e8d5 e169c58d ...
  CHECK(fllm::philox(0, 0) == 0xe169c58d6627e8d5ull);
}

void noise_is_standard_gumbel() {
  constexpr std::int64_t n = 200000;
  double sum = 0, squares = 0;
  for (std::int64_t id = 0; id < n; ++id) {
    double noise;
    fllm::gumbel(7, &id, 1, &noise);
    CHECK(std::isfinite(noise));
    sum += noise;
    squares += noise * noise;
  }
  const double mean = sum / n, variance = squares / n - mean * mean;
  CHECK(std::abs(mean - 0.5772156649) < 0.015);
  CHECK(std::abs(variance - 1.6449340668) < 0.04);
}

void same_bits(const fllm::kernels::Kernels& kernels, std::uint64_t seed, const std::vector<std::int64_t>& ids) {
  std::vector<double> expected(ids.size());
  fllm::gumbel(seed, ids.data(), ids.size(), expected.data());
  const Guarded input(ids.data(), 8 * ids.size()), output(expected.data(), 8 * ids.size());
  double* noise = output.as<double>();
  for (std::size_t i = 0; i < ids.size(); ++i) noise[i] = -1e300;
  kernels.gumbel(seed, input.as<std::int64_t>(), ids.size(), noise);
  for (std::size_t i = 0; i < ids.size(); ++i)
    CHECK(std::bit_cast<std::uint64_t>(noise[i]) == std::bit_cast<std::uint64_t>(expected[i]));
}

void same_bits_on_every_level() {
  std::mt19937_64 random_bits(22);
  for (const std::string& level : fllm::cpu_levels()) {
    const fllm::kernels::Kernels* kernels = fllm::kernels::find(level.c_str());
    if (kernels == nullptr) continue;
    for (std::size_t n = 0; n <= 40; ++n) {
      std::vector<std::int64_t> ids(n);
      for (std::int64_t& id : ids) id = static_cast<std::int64_t>(random_bits() >> 1);
      same_bits(*kernels, random_bits(), ids);
    }
    std::vector<std::int64_t> ids(300000);
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i);
    same_bits(*kernels, 0, ids);
    for (std::size_t i = 0; i < ids.size(); ++i)
      ids[i] = std::numeric_limits<std::int64_t>::max() - static_cast<std::int64_t>(i * i);
    same_bits(*kernels, ~0ull, ids);
  }
}

}  // namespace

int main() {
  known_answers();
  noise_is_standard_gumbel();
  same_bits_on_every_level();
  return check::result();
}
