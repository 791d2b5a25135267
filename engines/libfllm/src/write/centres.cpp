#include "write/centres.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "write/split_mix.hpp"

namespace fllm::writing {

namespace {

using kernels::kFeatures;
using kernels::kPointFloats;
using kernels::kTurnColumns;

// As fllm_export/table/centres.py says of each.
constexpr std::size_t kSampleRows = 16384, kProbes = 256, kMeetings = 1024, kMost = 4096, kFewestRows = 128;
constexpr double kLargest = 256;
constexpr std::int32_t kCoarse = 32, kReaches[] = {4, 8, 16, 32};
constexpr std::int64_t kApartNumerator = 9, kApartDenominator = 25;
constexpr std::uint64_t kLeftOver = 10, kOfLastBlock = 8;

using Places = std::vector<std::int16_t>;  // [n, kFeatures]

void to_grid(const float* point, double factor, std::int16_t* place) {
  for (std::size_t k = 0; k < kFeatures; ++k) {
    const double number = std::nearbyint(static_cast<double>(point[k]) * factor);
    place[k] = static_cast<std::int16_t>(std::clamp(number, -kLargest, kLargest));
  }
}

std::int32_t dot(const std::int16_t* a, const std::int16_t* b) {
  std::int32_t sum = 0;
  for (std::size_t k = 0; k < kFeatures; ++k) sum += std::int32_t{a[k]} * b[k];
  return sum;
}

}  // namespace

// A sample of a shard's rows on the grid.
struct Centres::Sample {
  double factor = 0;
  Places places;
  std::vector<std::int32_t> squares;

  Sample(const float* points, std::size_t n) : squares(std::min(n, kSampleRows)) {
    const auto point = [&](std::size_t i) {
      return points + (n <= kSampleRows ? i : static_cast<std::size_t>(split_mix(i) % n)) * kPointFloats;
    };
    double peak = 0;
    for (std::size_t i = 0; i < size(); ++i) {
      for (std::size_t k = 0; k < kFeatures; ++k) peak = std::max(peak, std::abs(static_cast<double>(point(i)[k])));
    }
    factor = peak > 0 ? kLargest / peak : 0.0;
    if (!std::isfinite(factor)) return;
    places.resize(size() * kFeatures);
    for (std::size_t i = 0; i < size(); ++i) {
      to_grid(point(i), factor, places.data() + i * kFeatures);
      squares[i] = dot(place(i), place(i));
    }
  }

  std::size_t size() const { return squares.size(); }
  const std::int16_t* place(std::size_t i) const { return places.data() + i * kFeatures; }
  std::int32_t between(std::size_t i, std::size_t j) const {
    return squares[i] + squares[j] - 2 * dot(place(i), place(j));
  }
};

namespace {

std::int32_t middle(std::vector<std::int32_t>& numbers) {
  const auto at = numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2);
  std::nth_element(numbers.begin(), at, numbers.end());
  return *at;
}

// Median squared distances: from a row to its nearest, no less than rounding to the grid makes, and to any row.
struct Distances {
  std::int32_t nearest, typical;
};

template <typename Sample>
Distances distances_of(const Sample& sample) {
  const std::size_t n = sample.size();
  std::vector<std::int32_t> nearest, met;
  for (std::size_t p = 0; p < kProbes; ++p) {
    const std::size_t i = p * n / kProbes;
    std::int32_t least = std::numeric_limits<std::int32_t>::max();
    for (std::size_t j = 0; j < n; ++j) {
      if (j != i) least = std::min(least, sample.between(i, j));
    }
    nearest.push_back(least);
    for (std::size_t m = 0; m < kMeetings; ++m) met.push_back(sample.between(i, m * n / kMeetings));
  }
  return {std::max(middle(nearest), kCoarse), middle(met)};
}

// Rows such that each lies within reach of one: the first that does not, again and again. None where they are too many.
template <typename Sample>
std::vector<std::uint32_t> leaders_of(const Sample& sample, std::int32_t reach, std::size_t most) {
  std::vector<std::uint32_t> leaders, left(sample.size());
  std::iota(left.begin(), left.end(), 0u);
  while (!left.empty()) {
    if (leaders.size() == most) return {};
    const std::uint32_t leader = left.front();
    leaders.push_back(leader);
    std::erase_if(left, [&](std::uint32_t row) { return sample.between(row, leader) <= reach; });
  }
  return leaders;
}

}  // namespace

Centres::Centres(const kernels::Writing& kernels, double factor, std::int32_t reach, const Places& places)
    : kernels_(&kernels),
      factor_(factor),
      reach_(reach),
      count_(places.size() / kFeatures),
      panels_((count_ + kTurnColumns - 1) / kTurnColumns * kTurnColumns * kFeatures),
      halves_(panels_.size() / kFeatures) {
  std::fill_n(panels_.data(), panels_.size(), 0.0f);
  // No place is nearest to what fills up the last panel.
  std::fill_n(halves_.data(), halves_.size(), std::numeric_limits<float>::infinity());
  for (std::size_t c = 0; c < count_; ++c) {
    const std::int16_t* place = places.data() + c * kFeatures;
    float* column = panels_.data() + c / kTurnColumns * kTurnColumns * kFeatures + c % kTurnColumns;
    for (std::size_t k = 0; k < kFeatures; ++k) column[k * kTurnColumns] = place[k];
    halves_[c] = static_cast<float>(dot(place, place)) / 2;
  }
}

void Centres::owners(const float* points, std::size_t n, std::int32_t* owners, std::int32_t* squares) const {
  constexpr std::size_t kRows = 64;
  float places[kRows * kFeatures], nears[kRows];
  for (std::size_t at = 0; at < n; at += kRows) {
    const std::size_t rows = std::min(kRows, n - at);
    for (std::size_t r = 0; r < rows; ++r) {
      std::int16_t place[kFeatures];
      to_grid(points + (at + r) * kPointFloats, factor_, place);
      std::copy_n(place, kFeatures, places + r * kFeatures);
      squares[at + r] = dot(place, place);
    }
    kernels_->nearest(places, rows, panels_.data(), halves_.data(), halves_.size() / kTurnColumns, owners + at, nears);
    for (std::size_t r = 0; r < rows; ++r) {
      squares[at + r] -= static_cast<std::int32_t>(2 * nears[r]);
      if (squares[at + r] > reach_) owners[at + r] = static_cast<std::int32_t>(count_);
    }
  }
}

// The places of centres of clusters of a squared radius; none where these have too few of the shard's n rows.
Places Centres::within(const kernels::Writing& kernels, const Sample& sample, std::int32_t reach, std::size_t n) {
  const std::vector<std::uint32_t> leaders = leaders_of(sample, reach, std::min(kMost, n / kFewestRows));
  Places places;
  for (const std::uint32_t leader : leaders)
    places.insert(places.end(), sample.place(leader), sample.place(leader) + kFeatures);
  if (leaders.empty()) return {};
  const Centres first(kernels, sample.factor, reach, places);
  std::vector<float> numbers(sample.places.begin(), sample.places.end()), nears(sample.size());
  std::vector<std::int32_t> own(sample.size());
  kernels.nearest(numbers.data(), sample.size(), first.panels_.data(), first.halves_.data(),
                  first.halves_.size() / kTurnColumns, own.data(), nears.data());
  std::vector<std::int64_t> counts(leaders.size()), sums(places.size());
  for (std::size_t i = 0; i < sample.size(); ++i) {
    const auto c = static_cast<std::size_t>(own[i]);
    ++counts[c];
    for (std::size_t k = 0; k < kFeatures; ++k) sums[c * kFeatures + k] += sample.place(i)[k];
  }
  const auto singles = static_cast<std::uint64_t>(std::count(counts.begin(), counts.end(), 1));
  const std::uint64_t left = singles * n + kOfLastBlock * leaders.size() * sample.size();
  if (kLeftOver * left > std::uint64_t{n} * sample.size()) return {};
  for (std::size_t at = 0; at < places.size(); ++at) {
    const double mean = static_cast<double>(sums[at]) / static_cast<double>(counts[at / kFeatures]);
    places[at] = static_cast<std::int16_t>(std::nearbyint(mean));
  }
  return places;
}

std::optional<Centres> Centres::find(const kernels::Writing& kernels, const float* points, std::size_t n) {
  const Sample sample(points, n);
  if (sample.places.empty()) return std::nullopt;
  const Distances distances = distances_of(sample);
  for (const std::int32_t times : kReaches) {
    const std::int32_t reach = times * distances.nearest;
    if (kApartDenominator * reach > kApartNumerator * distances.typical) return std::nullopt;
    const Places places = within(kernels, sample, reach, n);
    if (!places.empty()) return Centres(kernels, sample.factor, reach, places);
  }
  return std::nullopt;
}

}  // namespace fllm::writing
