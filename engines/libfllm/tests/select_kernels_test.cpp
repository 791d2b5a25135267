// Scores, hits and denominators of every level against plain double arithmetic.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
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

// A block with sums for some items, and what the kernels are told about them.
struct Scene {
  std::size_t rows, count;
  std::vector<std::int32_t> high, low;
  std::vector<float> sums, scales, row_errors, bias, item_scales, item_errors, thresholds;
  bool with_low = true, with_bias = true;

  Scene(std::size_t rows, std::size_t items, std::int32_t limb)
      : rows(rows),
        count((items + kItemLanes - 1) / kItemLanes * kItemLanes),
        sums(floats(rows * count, -3, 3)),
        scales(floats(rows, 0.001, 0.02)),
        row_errors(floats(rows, 0, 2)),
        bias(floats(rows, -4, 4)),
        item_scales(floats(count, 1e-4, 1e-3)),
        item_errors(floats(count, 0, 0.01)),
        thresholds(floats(count, -2, 6)) {
    std::uniform_int_distribution<std::int32_t> limbs(-limb, limb);
    for (std::size_t i = 0; i < rows * count; ++i) {
      high.push_back(limbs(random_bits));
      low.push_back(limbs(random_bits));
    }
    for (std::size_t i = items; i < count; ++i) {
      item_scales[i] = 0;
      thresholds[i] = kInfinity;
    }
    for (std::size_t i = 0; i < items; i += 5) thresholds[i] = -kInfinity;
  }

  Block block() const { return {rows, scales.data(), row_errors.data(), with_bias ? bias.data() : nullptr}; }
  Items items() const { return {count, item_scales.data(), item_errors.data(), thresholds.data()}; }

  double integer_sum(std::size_t at) const { return 128.0 * high[at] + (with_low ? low[at] : 0); }
  double magnitude(std::size_t at) const { return 128.0 * std::abs(high[at]) + (with_low ? std::abs(low[at]) : 0); }
  double scale(std::size_t r, std::size_t i) const { return static_cast<double>(scales[r]) * item_scales[i]; }
  double score(double sum, std::size_t r, std::size_t i) const { return sum * scale(r, i) + (with_bias ? bias[r] : 0); }
};

// ---- hits

// The documented rule: what must be a hit, what must not, and the order of those that are.
template <class Sum, class Magnitude>
void check_hits(const Scene& scene, const std::vector<Hit>& hits, Sum sum, Magnitude magnitude) {
  std::vector<bool> hit(scene.rows * scene.count);
  for (std::size_t h = 0; h < hits.size(); ++h) {
    CHECK(hits[h].row < scene.rows && hits[h].item < scene.count);
    const std::size_t at = hits[h].row * scene.count + hits[h].item;
    CHECK(h == 0 || hits[h - 1].row * scene.count + hits[h - 1].item < at);
    hit[at] = true;
  }
  for (std::size_t r = 0; r < scene.rows; ++r) {
    for (std::size_t i = 0; i < scene.count; ++i) {
      const std::size_t at = r * scene.count + i;
      const double score = scene.score(sum(at), r, i);
      const double error = static_cast<double>(scene.row_errors[r]) * scene.item_errors[i];
      const double rounding = scene.scale(r, i) * magnitude(at) * 0x1p-22 + std::abs(score) * 0x1p-23 + error * 0x1p-23;
      if (score + error - rounding >= scene.thresholds[i]) CHECK(hit[at] || scene.thresholds[i] == kInfinity);
      if (score + error + rounding < scene.thresholds[i]) CHECK(!hit[at]);
    }
  }
}

std::vector<Hit> select_integers(const Kernels& kernels, const Scene& scene, const Denominator* denominator) {
  const Guarded high(scene.high.data(), 4 * scene.high.size()), low(scene.low.data(), 4 * scene.low.size());
  std::vector<Hit> out(scene.rows * scene.count);
  const auto* low_sums = scene.with_low ? low.as<std::int32_t>() : nullptr;
  out.resize(kernels.select_int8_many(high.as<std::int32_t>(), low_sums, scene.block(), scene.items(), denominator,
                                      out.data()));
  return out;
}

std::vector<Hit> select_floats(const Kernels& kernels, const Scene& scene, const Denominator* denominator) {
  std::vector<Hit> out(scene.rows * scene.count);
  out.resize(kernels.select_float_many(scene.sums.data(), scene.block(), scene.items(), denominator, out.data()));
  return out;
}

// Thresholds that some score reaches exactly, or misses by a rounding.
void put_thresholds_on_scores(Scene& scene) {
  for (std::size_t i = 0; i < scene.count; i += 3) {
    if (scene.thresholds[i] == kInfinity) continue;
    const std::size_t r = random_bits() % scene.rows;
    scene.thresholds[i] = static_cast<float>(scene.score(scene.integer_sum(r * scene.count + i), r, i));
  }
}

void hits(const Kernels& kernels) {
  for (const std::size_t rows : {1, 2, 3, 4, 5, 8, 13, 31, 63, 64}) {
    for (const std::size_t items : {1, 16, 17, 40, 128}) {
      for (const std::int32_t limb : {900, 8128 * 60, 8128 * 4096}) {
        Scene scene(rows, items, limb);
        scene.with_low = random_bits() % 2 != 0;
        scene.with_bias = random_bits() % 2 != 0;
        if (limb > 900) scene.item_scales = floats(scene.count, 1e-9, 1e-8);
        put_thresholds_on_scores(scene);
        check_hits(
            scene, select_integers(kernels, scene, nullptr), [&](std::size_t at) { return scene.integer_sum(at); },
            [&](std::size_t at) { return scene.magnitude(at); });
        scene.item_scales = floats(scene.count, 0.5, 2);
        scene.scales = floats(rows, 0.5, 2);
        check_hits(
            scene, select_floats(kernels, scene, nullptr), [&](std::size_t at) { return scene.sums[at]; },
            [&](std::size_t at) { return std::abs(static_cast<double>(scene.sums[at])); });
      }
    }
  }
}

void no_hits_and_all_hits(const Kernels& kernels) {
  Scene scene(64, 48, 900);
  std::fill(scene.thresholds.begin(), scene.thresholds.end(), 1e6f);
  CHECK(select_integers(kernels, scene, nullptr).empty());
  std::fill(scene.thresholds.begin(), scene.thresholds.end(), -kInfinity);
  CHECK(select_integers(kernels, scene, nullptr).size() == 64 * 48);
}

// Scores that are no numbers count as hits of real items, and padding has none whatever the scales say.
void hostile_scales(const Kernels& kernels) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float scale : {kInfinity, -kInfinity, nan, 3e38f, 0.0f}) {
    Scene scene(9, 20, 900);
    scene.thresholds.assign(20, 1.0f);
    scene.thresholds.resize(scene.count, kInfinity);
    std::fill(scene.item_scales.begin(), scene.item_scales.begin() + 20, 1e10f);
    scene.scales[3] = scene.row_errors[5] = scale;
    std::vector<float> references(scene.count, -kInfinity), sums(scene.count);
    const Denominator denominator{references.data(), sums.data(), 0};
    std::size_t of_row_3 = 0;
    for (const Hit& hit : select_integers(kernels, scene, &denominator)) {
      CHECK(hit.item < 20 && hit.row < 9);
      of_row_3 += hit.row == 3;
    }
    if (std::isnan(scale)) CHECK(of_row_3 == 20);
    scene.sums.assign(scene.sums.size(), nan);
    CHECK(select_floats(kernels, scene, &denominator).size() == 9 * 20);
  }
}

// ---- one item

void finishes_int8(const Kernels& kernels) {
  for (std::size_t rows = 1; rows <= kBlockRows; ++rows) {
    for (const bool with_bias : {false, true}) {
      Scene scene(rows, 1, 8128 * 128);
      scene.with_bias = with_bias;
      scene.high[0] = scene.low[0] = 0;  // and the sign of zero
      if (rows > 1) scene.scales[1] = 0x1p-140f;
      const double item_scale = uniform(-1e-3, 1e-3);
      // A bias that cancels the product lets its rounding in double be seen.
      for (std::size_t r = 2; r < rows; r += 3)
        scene.bias[r] = static_cast<float>(-scene.integer_sum(r) * (scene.scales[r] * item_scale));
      const Guarded scales(scene.scales.data(), 4 * rows), bias(scene.bias.data(), 4 * rows);
      const Guarded high(scene.high.data(), 4 * rows), low(scene.low.data(), 4 * rows);
      const Block block{rows, scales.as<float>(), nullptr, with_bias ? bias.as<float>() : nullptr};
      const Guarded scores(scene.sums.data(), 4 * rows);
      kernels.finish_int8_one(high.as<std::int32_t>(), low.as<std::int32_t>(), block, item_scale, scores.as<float>());
      for (std::size_t r = 0; r < rows; ++r) {
        const double scale = static_cast<double>(scene.scales[r]) * item_scale;
        const volatile double product = (128.0 * scene.high[r] + scene.low[r]) * scale;
        const float expected = static_cast<float>(product + (with_bias ? scene.bias[r] : 0.0));
        CHECK(std::bit_cast<std::uint32_t>(scores.as<float>()[r]) == std::bit_cast<std::uint32_t>(expected));
      }
    }
  }
}

void finishes_floats(const Kernels& kernels) {
  for (std::size_t rows = 1; rows <= kBlockRows; ++rows) {
    Scene scene(rows, 1, 1);
    scene.with_bias = rows % 2 == 0;
    const float item_scale = static_cast<float>(uniform(-2, 2)), item_error = 0.01f;
    if (rows > 2) scene.sums[rows - 2] = std::numeric_limits<float>::quiet_NaN();
    const Guarded sums(scene.sums.data(), 4 * rows), scales(scene.scales.data(), 4 * rows);
    const Guarded errors(scene.row_errors.data(), 4 * rows), bias(scene.bias.data(), 4 * rows);
    const Block block{rows, scales.as<float>(), errors.as<float>(), scene.with_bias ? bias.as<float>() : nullptr};
    std::vector<float> scores(rows), uppers(rows);
    kernels.finish_float_one(sums.as<float>(), block, item_scale, item_error, scores.data(), uppers.data());
    for (std::size_t r = 0; r < rows; ++r) {
      if (std::isnan(scene.sums[r])) {
        CHECK(uppers[r] == kInfinity);
        continue;
      }
      const double product = static_cast<double>(scene.sums[r]) * scene.scales[r] * item_scale;
      const double score = product + (scene.with_bias ? scene.bias[r] : 0.0);
      const double error = static_cast<double>(scene.row_errors[r]) * item_error;
      const double rounding = std::abs(product) * 0x1p-22 + std::abs(score) * 0x1p-23;
      CHECK(std::abs(scores[r] - score) <= rounding);
      CHECK(std::abs(uppers[r] - score - error) <= rounding + error * 0x1p-23);
    }
  }
}

void finds_not_below(const Kernels& kernels) {
  for (std::size_t n = 0; n <= 260; n += n < kBlockRows ? 1 : 14) {
    std::vector<float> values = floats(n, -1, 1);
    if (n > 3) values[n / 2] = 0.25f;
    if (n > 4) values[1] = std::numeric_limits<float>::quiet_NaN();
    const Guarded guarded(values.data(), 4 * n);
    for (const float threshold : {0.25f, -kInfinity, kInfinity, 0.9f}) {
      std::vector<std::uint16_t> expected, found(n);
      for (std::size_t i = 0; i < n; ++i)
        if (!(values[i] < threshold)) expected.push_back(static_cast<std::uint16_t>(i));
      found.resize(kernels.not_below(guarded.as<float>(), n, threshold, found.data()));
      CHECK(found == expected);
    }
  }
}

// ---- denominators

struct Range {
  double low, high;
};

constexpr Range kRanges[] = {{-1, 1},      {0, 30},   {-30, 0},          {-200, 50},      {-1e30, -1e29}, {5.37, 5.37},
                             {-0.3, 25.4}, {90, 200}, {-1000.5, -980.5}, {1e6, 1e6 + 40}, {0, 0}};

// log of what a reference and a sum stand for, against that of the scores.
void check_denominator(double reference, double sum, const std::vector<double>& scores) {
  const double top = *std::max_element(scores.begin(), scores.end());
  double expected = 0;
  for (const double score : scores) expected += std::exp(score - top);
  CHECK(std::abs(sum * std::exp(reference - top) / expected - 1) <= 1e-6);
}

void accumulates_one(const Kernels& kernels) {
  for (const Range& range : kRanges) {
    for (std::size_t n = 1; n <= kBlockRows; ++n) {
      std::vector<double> seen;
      float reference = -kInfinity;
      double total = 0;
      for (int block = 0; block < 3; ++block) {
        // Later blocks lie higher, so that references are raised with something in the sum.
        const std::vector<float> scores = floats(n, range.low + 35 * block, range.high + 35 * block);
        const Guarded guarded(scores.data(), 4 * n);
        const float before = reference;
        float sum = static_cast<float>(total);
        kernels.accumulate_one(guarded.as<float>(), n, &reference, &sum);
        CHECK(reference >= before);
        total = sum;
        seen.insert(seen.end(), scores.begin(), scores.end());
        check_denominator(reference, total, seen);
      }
    }
  }
}

// One score alone shows the exponential itself.
void exponentials(const Kernels& kernels) {
  for (int step = -60000; step <= 4000; ++step) {
    const float score = static_cast<float>(step) * 0x1p-10f;
    float reference = 0, sum = 0;
    kernels.accumulate_one(&score, 1, &reference, &sum);
    CHECK(reference == 0 && std::abs(sum / std::exp(static_cast<double>(score)) - 1) <= 1.2e-7);
  }
}

void accumulates_many(const Kernels& kernels) {
  for (const Range& range : kRanges) {
    for (const std::size_t rows : {1, 2, 7, 8, 9, 50, 64}) {
      Scene scene(rows, 32, 900);
      scene.with_bias = false;
      scene.scales.assign(rows, 1.0f);
      scene.item_scales.assign(32, 1.0f);
      std::vector<float> references(32, -kInfinity), sums(32);
      const Denominator denominator{references.data(), sums.data(), 0};
      std::vector<std::vector<double>> seen(32);
      for (int block = 0; block < 3; ++block) {
        scene.sums = floats(rows * 32, range.low + 35 * block, range.high + 35 * block);
        const std::size_t without = select_floats(kernels, scene, nullptr).size();
        CHECK(select_floats(kernels, scene, &denominator).size() == without);
        for (std::size_t i = 0; i < 32; ++i) {
          for (std::size_t r = 0; r < rows; ++r) seen[i].push_back(scene.sums[r * 32 + i]);
          check_denominator(references[i], sums[i], seen[i]);
        }
      }
    }
  }
}

// Integer sums reach the denominator as scores too; these scales make their rounding harmless.
void accumulates_integers(const Kernels& kernels) {
  Scene scene(64, 48, 4000);
  scene.scales.assign(64, 0x1p-10f);
  scene.item_scales.assign(48, 0x1p-6f);
  scene.bias.assign(64, 0.5f);
  for (const bool with_low : {false, true}) {
    scene.with_low = with_low;
    std::vector<float> references(48, -kInfinity), sums(48);
    const Denominator denominator{references.data(), sums.data(), 0};
    select_integers(kernels, scene, &denominator);
    for (std::size_t i = 0; i < 48; ++i) {
      std::vector<double> seen;
      for (std::size_t r = 0; r < 64; ++r) seen.push_back(scene.score(scene.integer_sum(r * 48 + i), r, i));
      check_denominator(references[i], sums[i], seen);
    }
  }
}

double power_of(double score, int exponent) { return std::pow(std::clamp(score, 0.0, 0x1p30), exponent); }

// Sums of powers of one item and of many, scores beyond the largest among them.
void sums_powers(const Kernels& kernels) {
  for (int exponent = 1; exponent <= 4; ++exponent) {
    for (const float most : {0x1p-20f, 3.0f, 100.0f, 0x1p32f}) {
      for (std::size_t rows = 1; rows <= kBlockRows; ++rows) {
        Scene scene(rows, 16, 900);
        scene.with_bias = false;
        scene.scales.assign(rows, 1.0f);
        scene.item_scales.assign(16, 1.0f);
        scene.sums = floats(rows * 16, -most, most);
        std::vector<float> references(16, -kInfinity), sums(16, 0.0f);
        const Denominator denominator{references.data(), sums.data(), exponent};
        select_floats(kernels, scene, &denominator);
        for (std::size_t i = 0; i < 16; ++i) {
          std::vector<float> scores(rows);
          double expected = 0;
          for (std::size_t r = 0; r < rows; ++r) {
            scores[r] = scene.sums[r * 16 + i];
            expected += power_of(scores[r], exponent);
          }
          const Guarded guarded(scores.data(), 4 * rows);
          const float one = kernels.powers_one(guarded.as<float>(), rows, exponent);
          CHECK(std::abs(one - expected) <= 1e-6 * expected && std::abs(sums[i] - expected) <= 1e-6 * expected);
        }
        CHECK(references == std::vector<float>(16, -kInfinity));
      }
    }
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float some[] = {nan, 2.0f, -kInfinity, -3e38f, kInfinity};
  CHECK(kernels.powers_one(some, 4, 3) == 8.0f && kernels.powers_one(some, 5, 4) == 0x1p120f + 16.0f);
}

void survives_no_numbers(const Kernels& kernels) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  float reference = -kInfinity, sum = 0;
  const float none[] = {-kInfinity, nan, -kInfinity};
  kernels.accumulate_one(none, 3, &reference, &sum);
  CHECK(reference == -kInfinity && sum < 1e-30f);
  const float some[] = {nan, 2.0f, -kInfinity, nan};
  kernels.accumulate_one(some, 4, &reference, &sum);
  check_denominator(reference, sum, {2.0});
}

}  // namespace

int main() {
  for (const std::string& level : fllm::cpu_levels()) {
    const Kernels* kernels = fllm::kernels::find(level.c_str());
    if (kernels == nullptr) continue;
    hits(*kernels);
    no_hits_and_all_hits(*kernels);
    hostile_scales(*kernels);
    finishes_int8(*kernels);
    finishes_floats(*kernels);
    finds_not_below(*kernels);
    exponentials(*kernels);
    sums_powers(*kernels);
    accumulates_one(*kernels);
    accumulates_many(*kernels);
    accumulates_integers(*kernels);
    survives_no_numbers(*kernels);
  }
  return check::result();
}
