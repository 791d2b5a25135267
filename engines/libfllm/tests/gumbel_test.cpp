// Known answers of Philox, the shape of the noise, and the same bits from every level.
#include "search/gumbel.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "guarded.hpp"
#include "kernels/kernels.hpp"
#include "link.hpp"
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

using fllm::kernels::kBlockRows;
using fllm::kernels::Kernels;
using fllm::kernels::Reach;

// What a row's key is compared by, as Worker::keep_sampled does.
double key_of(std::uint64_t seed, std::int64_t id, float score, int exponent) {
  double noise;
  fllm::gumbel(seed, &id, 1, &noise);
  return fllm::Link{exponent}.logit(score) + noise;
}

// Every row of a block that reaches the threshold is among those that may; returns how many those are, and do.
std::pair<std::size_t, std::size_t> check_reach(const Kernels& kernels, std::uint64_t seed, std::int64_t first,
                                                const std::vector<float>& scores, const Reach& reach) {
  const std::size_t n = scores.size();
  std::vector<std::int64_t> ids(n);
  std::iota(ids.begin(), ids.end(), first);
  const Guarded known(ids.data(), 8 * n), given(scores.data(), 4 * n);
  std::vector<std::uint16_t> indices(n);
  const std::size_t found =
      kernels.may_reach(seed, known.as<std::int64_t>(), given.as<float>(), n, reach, indices.data());
  CHECK(found <= n && std::is_sorted(indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(found)));
  std::size_t reaching = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (!(key_of(seed, ids[i], scores[i], reach.exponent) >= reach.threshold)) continue;
    ++reaching;
    CHECK(std::binary_search(indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(found), i));
  }
  return {found, reaching};
}

void no_row_that_reaches_a_threshold_is_left_out() {
  std::mt19937_64 random_bits(5);
  std::normal_distribution<float> normal;
  for (const std::string& level : fllm::cpu_levels()) {
    const Kernels* kernels = fllm::kernels::find(level.c_str());
    if (kernels == nullptr) continue;
    for (int exponent = 0; exponent <= fllm::Link::kLargestExponent; ++exponent) {
      for (const float threshold : {-3.0f, 0.0f, 2.0f, 6.0f, 9.0f}) {
        std::size_t found = 0, reaching = 0;
        for (std::int64_t block = 0; block < 2000; ++block) {
          std::vector<float> scores(block % 7 == 0 ? static_cast<std::size_t>(block) % (kBlockRows + 1) : kBlockRows);
          for (float& score : scores) score = normal(random_bits);
          const auto [some, of] = check_reach(*kernels, 3, 100 * block, scores, {threshold, exponent});
          found += some;
          reaching += of;
        }
        // Of likely rows -ln u and 1 - u differ; unlikely ones are 1.0615 times as many at most, give or take chance.
        if (threshold > 5) CHECK(found <= reaching + reaching / 8 + 40);
      }
    }
  }
}

void scores_and_thresholds_of_any_size() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kLargest = std::numeric_limits<float>::max();
  const std::vector<float> scores = {-kInfinity, -kLargest, -1e9f,   -90,   -1e-30f,  0,
                                     1e-30f,     90,        0x1p30f, 1e30f, kLargest, kInfinity};
  for (const std::string& level : fllm::cpu_levels()) {
    const Kernels* kernels = fllm::kernels::find(level.c_str());
    if (kernels == nullptr) continue;
    for (int exponent = 0; exponent <= fllm::Link::kLargestExponent; ++exponent) {
      for (float threshold : scores) {
        for (std::int64_t first = 0; first < 300; first += 12) {
          check_reach(*kernels, 9, first, scores, {threshold, exponent});
          check_reach(*kernels, 9, first, std::vector<float>(64, threshold), {threshold, exponent});
        }
      }
    }
  }
}

}  // namespace

int main() {
  known_answers();
  noise_is_standard_gumbel();
  same_bits_on_every_level();
  no_row_that_reaches_a_threshold_is_left_out();
  scores_and_thresholds_of_any_size();
  return check::result();
}
