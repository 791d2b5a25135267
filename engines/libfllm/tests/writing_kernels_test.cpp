// The loops of writing on every level: their sums against plain integers, and all else against the scalar level.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "kernels/kernels.hpp"
#include "machine/cpu.hpp"

namespace {

using fllm::kernels::kFeatures;
using fllm::kernels::kLevelSteps;
using fllm::kernels::kPointFloats;
using fllm::kernels::kTurnColumns;
using fllm::kernels::LevelSums;
using fllm::kernels::Writing;

std::mt19937_64 random_bits(30);

std::vector<float> floats(std::size_t n, double size) {
  std::normal_distribution<double> normal;
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(normal(random_bits) * size);
  return values;
}

std::vector<std::int32_t> integers(std::size_t n, std::int32_t largest) {
  std::uniform_int_distribution<std::int32_t> any(-largest, largest);
  std::vector<std::int32_t> values(n);
  for (std::int32_t& value : values) value = any(random_bits);
  return values;
}

// What a level makes of the same values; compared byte by byte.
template <typename T>
void check_same(const std::vector<T>& found, const std::vector<T>& expected) {
  CHECK(std::memcmp(found.data(), expected.data(), found.size() * sizeof(T)) == 0);
}

void check_codes(const Writing& level, const Writing& scalar, std::size_t n) {
  for (const double size : {1.0, 1e-41, 1e30}) {
    const std::vector<float> values = floats(n, size);
    float peak = 0;
    for (const float value : values) peak = std::max(peak, std::abs(value));
    std::uint32_t bits = 0;
    std::memcpy(&bits, &peak, sizeof bits);
    CHECK(level.peak(values.data(), n) == bits);
    const float step = std::max(peak / 127, 1.17549435e-38f);
    std::vector<std::int8_t> integers(n), expected_integers(n);
    level.to_integers(values.data(), n, step, 127, integers.data());
    scalar.to_integers(values.data(), n, step, 127, expected_integers.data());
    check_same(integers, expected_integers);
    std::vector<std::uint8_t> bytes(n), expected_bytes(n);
    level.to_fp8(values.data(), n, std::max(peak / 448, 1.17549435e-38f), bytes.data());
    scalar.to_fp8(values.data(), n, std::max(peak / 448, 1.17549435e-38f), expected_bytes.data());
    check_same(bytes, expected_bytes);
    level.to_odd(values.data(), n, step * 30, 15, bytes.data());
    scalar.to_odd(values.data(), n, step * 30, 15, expected_bytes.data());
    check_same(bytes, expected_bytes);
    std::vector<std::uint16_t> halves(n), expected_halves(n);
    level.to_fp16(values.data(), n, std::max(peak, 1.17549435e-38f), halves.data());
    scalar.to_fp16(values.data(), n, std::max(peak, 1.17549435e-38f), expected_halves.data());
    check_same(halves, expected_halves);
  }
}

void check_sums(const Writing& level, std::size_t n) {
  const std::vector<std::int32_t> a = integers(n, 1 << 20), b = integers(n, 1 << 24);
  std::int64_t product = 0, squares = 0;
  for (std::size_t i = 0; i < n; ++i) {
    product += std::int64_t{a[i]} * b[i];
    squares += std::int64_t{a[i]} * a[i];
  }
  CHECK(level.dot(a.data(), b.data(), n) == product);
  const std::vector<double> wide(a.begin(), a.end());
  std::vector<std::int32_t> fixed(n);
  CHECK(level.fix_wide(wide.data(), n, 1.0, fixed.data()) == squares);
  check_same(fixed, a);
}

void check_levels(const Writing& level, std::size_t n) {
  const std::vector<std::int32_t> a = integers(n, 1 << 20);
  constexpr float kFactors[kLevelSteps] = {1e-5f, 3e-5f, 4e-6f, 1, 1e-9f};
  LevelSums sums[kLevelSteps];
  level.try_levels(a.data(), n, kFactors, sums);
  for (std::size_t s = 0; s < kLevelSteps; ++s) {
    std::vector<std::uint8_t> levels(n);
    level.to_levels(a.data(), n, kFactors[s], levels.data());
    std::int64_t along = 0, squares = 0, coarse_along = 0, coarse_squares = 0, found_along = 0, found_squares = 0;
    for (std::size_t i = 0; i < n; ++i) {
      CHECK(levels[i] == std::clamp(std::floor(static_cast<float>(a[i]) * kFactors[s] + 8.0f), 0.0f, 15.0f));
      const int code = 2 * levels[i] - 15, coarse = 2 * (levels[i] >> 2) - 3;
      along += std::int64_t{a[i]} * code;
      squares += code * code;
      coarse_along += std::int64_t{a[i]} * coarse;
      coarse_squares += coarse * coarse;
    }
    CHECK(sums[s].along == along && sums[s].squares == squares && sums[s].coarse_squares == coarse_squares);
    level.coarse_sums(a.data(), levels.data(), n, &found_along, &found_squares);
    CHECK(found_along == coarse_along && found_squares == coarse_squares);
  }
}

// Sums of 0, 1 and more vectors, some of them twice; numbers between vectors are no part of them.
void check_picked(const Writing& level, std::size_t n) {
  constexpr std::size_t kVectors = 12;
  const std::size_t stride = n + 3;
  const std::vector<std::int32_t> whole = integers(kVectors * stride, 1 << 20);
  const std::vector<float> vectors(whole.begin(), whole.end());
  const std::vector<std::int32_t> places = {11, 3, 0, 7, 7, 1, 2, 5, 11, 4, 9, 8, 6, 10, 0, 3, 11};
  for (std::size_t first = 0; first < places.size(); ++first) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, places.size() - first}) {
      std::vector<float> out(n);
      const std::size_t after = places.size() - first - count;
      level.sum_picked({vectors.data(), stride, places.data() + first, count, after}, n, 0.3, out.data());
      for (std::size_t i = 0; i < n; ++i) {
        double sum = 0;
        for (std::size_t k = 0; k < count; ++k)
          sum += vectors[static_cast<std::size_t>(places[first + k]) * stride + i];
        CHECK(out[i] == static_cast<float>(sum * 0.3));
      }
    }
  }
}

void check_turn(const Writing& level, std::size_t rows, std::size_t dim, std::size_t columns) {
  const std::vector<std::int32_t> fixed = integers(rows * dim, 1 << 20), whole = integers(columns * dim, 1 << 20);
  const std::vector<double> weights(whole.begin(), whole.end());
  std::vector<double> wide(8 * dim), turned(rows * columns);
  level.turn(fixed.data(), rows, dim, weights.data(), columns, wide.data(), turned.data());
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      std::int64_t sum = 0;
      for (std::size_t j = 0; j < dim; ++j) {
        const std::size_t at = (c / kTurnColumns * dim + j) * kTurnColumns + c % kTurnColumns;
        sum += std::int64_t{fixed[r * dim + j]} * whole[at];
      }
      CHECK(turned[r * columns + c] == static_cast<double>(sum));
    }
  }
}

void check_turn_by_signs(const Writing& level, std::size_t dim) {
  constexpr std::size_t kRows = 3;
  constexpr double kStep = 1482910;
  std::vector<std::int32_t> fixed = integers(kRows * dim, 1 << 20), signs = integers(dim, 1);
  for (std::int32_t& sign : signs) sign = sign < 0 ? -1 : 1;
  for (std::size_t j = 0; j < dim; ++j) fixed[j] = (j % 2 == 0 ? 1 << 20 : -(1 << 20)) * signs[j];  // the largest sum
  std::vector<double> wide(8 * dim), turned(kRows * dim);
  level.turn_by_signs(fixed.data(), kRows, dim, signs.data(), kStep, wide.data(), turned.data());
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t i = 0; i < dim; ++i) {
      std::int64_t sum = 0;
      for (std::size_t j = 0; j < dim; ++j) {
        const std::int64_t number = std::int64_t{fixed[r * dim + j]} * signs[j];
        sum += std::popcount(i & j) % 2 == 0 ? number : -number;
      }
      CHECK(turned[r * dim + i] == kStep * static_cast<double>(sum));
    }
  }
}

void check_order(const Writing& level, const Writing& scalar) {
  constexpr std::size_t kCount = 77, kSquare = kFeatures * kFeatures;
  const std::vector<float> points = floats(kCount * kPointFloats, 3), direction = floats(kFeatures, 1);
  std::vector<std::uint32_t> rows(kCount);
  for (std::size_t i = 0; i < kCount; ++i) rows[i] = static_cast<std::uint32_t>(kCount - 1 - i);
  std::vector<float> keys(kCount), expected_keys(kCount);
  level.keys(points.data(), rows.data(), kCount, direction.data(), keys.data());
  scalar.keys(points.data(), rows.data(), kCount, direction.data(), expected_keys.data());
  check_same(keys, expected_keys);
  const std::vector<std::int32_t> whole = integers(kCount * kFeatures, 1 << 20);
  const std::vector<double> centred(whole.begin(), whole.end());
  std::vector<double> moment(kSquare), expected_moment(kSquare), power(kSquare), expected_power(kSquare);
  level.moment(centred.data(), kCount, moment.data());
  scalar.moment(centred.data(), kCount, expected_moment.data());
  check_same(moment, expected_moment);
  for (double& number : moment) number *= 1e-13;
  level.square(moment.data(), power.data());
  scalar.square(moment.data(), expected_power.data());
  check_same(power, expected_power);
}

// Against sums of integers, with centres that stand twice.
void check_nearest(const Writing& level, std::size_t n) {
  constexpr std::size_t kPanels = 3, kCentres = kPanels * kTurnColumns, kUsed = kCentres - 5;
  std::vector<std::int32_t> centres = integers(kCentres * kFeatures, 256);
  std::copy_n(centres.begin(), 2 * kFeatures, centres.begin() + 20 * kFeatures);
  const std::vector<std::int32_t> whole = integers(n * kFeatures, 256);
  std::vector<float> places(whole.begin(), whole.end()), panels(centres.size()), halves(kCentres, HUGE_VALF), nears(n);
  std::copy_n(centres.begin(), kFeatures, places.begin());
  std::vector<std::int32_t> owners(n);
  for (std::size_t c = 0; c < kUsed; ++c) {
    halves[c] = 0;
    for (std::size_t k = 0; k < kFeatures; ++k) {
      const auto number = static_cast<float>(centres[c * kFeatures + k]);
      panels[(c / kTurnColumns * kFeatures + k) * kTurnColumns + c % kTurnColumns] = number;
      halves[c] += number * number / 2;
    }
  }
  level.nearest(places.data(), n, panels.data(), halves.data(), kPanels, owners.data(), nears.data());
  CHECK(owners[0] == 0);
  for (std::size_t i = 0; i < n; ++i) {
    std::int64_t best = INT64_MIN;
    std::int32_t owner = -1;
    for (std::size_t c = 0; c < kUsed; ++c) {
      std::int64_t twice = 0;
      for (std::size_t k = 0; k < kFeatures; ++k) {
        const auto place = static_cast<std::int64_t>(places[i * kFeatures + k]);
        const std::int64_t centre = centres[c * kFeatures + k];
        twice += 2 * place * centre - centre * centre;
      }
      if (twice > best) {
        best = twice;
        owner = static_cast<std::int32_t>(c);
      }
    }
    CHECK(owners[i] == owner && 2 * static_cast<double>(nears[i]) == static_cast<double>(best));
  }
}

}  // namespace

int main() {
  const Writing& scalar = fllm::kernels::find("scalar")->writing;
  for (const std::string& name : fllm::cpu_levels()) {
    const fllm::kernels::Kernels* level = fllm::kernels::find(name.c_str());
    if (level == nullptr) continue;
    for (const std::size_t n : {1, 2, 15, 16, 17, 64, 100, 129, 4096}) {
      check_codes(level->writing, scalar, n);
      check_sums(level->writing, n);
      check_levels(level->writing, n);
      check_picked(level->writing, n);
    }
    for (const std::size_t rows : {1, 3, 8, 13}) check_turn(level->writing, rows, 37, 2 * kTurnColumns);
    for (const std::size_t dim : {1, 2, 16, 32, 128, 256, 1024, 2048}) check_turn_by_signs(level->writing, dim);
    check_order(level->writing, scalar);
    for (const std::size_t n : {1, 2, 7, 8, 9, 100}) check_nearest(level->writing, n);
  }
  return check::result();
}
