#include "write/row_order.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "write/parallel.hpp"
#include "write/split_mix.hpp"

namespace fllm::writing {

namespace {

using kernels::kFeatures;
using kernels::kPointFloats;
using kernels::Writing;

constexpr std::size_t kSampleRows = 1024;
constexpr double kNormWeight = 2, kLargest = 0x1p20;
constexpr int kSquarings = 6;

struct Range {
  std::size_t begin, end;
  std::size_t size() const { return end - begin; }
};

// What one thread splits ranges of rows with. Within a range, rows are numbers of points, ascending.
class Splitter {
 public:
  Splitter(const Writing& kernels, const float* points, std::size_t tile_rows, std::uint32_t* rows)
      : kernels_(kernels),
        points_(points),
        tile_rows_(tile_rows),
        rows_(rows),
        centred_(kSampleRows * kFeatures),
        norms_(kSampleRows),
        moment_(kFeatures * kFeatures),
        power_(kFeatures * kFeatures),
        next_(kFeatures * kFeatures) {}

  // Halves a range at a tile's boundary; the ranges of its two halves, or nothing where it is one tile.
  std::optional<std::pair<Range, Range>> split(Range range) {
    if (range.size() <= tile_rows_) return std::nullopt;
    const std::size_t half = (range.size() + tile_rows_ - 1) / tile_rows_ / 2 * tile_rows_;
    compute_keys(range);
    part(range, half);
    return std::pair{Range{range.begin, range.begin + half}, Range{range.begin + half, range.end}};
  }

  void split_all(Range range) {
    if (const auto halves = split(range)) {
      split_all(halves->first);
      split_all(halves->second);
    }
  }

 private:
  void compute_keys(Range range) {
    keys_.resize(range.size());
    float direction[kFeatures];
    if (choose_direction(range, direction)) {
      kernels_.keys(points_, rows_ + range.begin, range.size(), direction, keys_.data());
    } else {
      for (std::size_t i = 0; i < range.size(); ++i)
        keys_[i] = points_[std::size_t{rows_[range.begin + i]} * kPointFloats + kFeatures];
    }
  }

  // The direction in which the rows spread the most; false where their norms spread more.
  bool choose_direction(Range range, float* direction) {
    const double spread = centre_sample(range);
    std::fill(moment_.begin(), moment_.end(), 0.0);
    kernels_.moment(centred_.data(), sampled_, moment_.data());
    const double* longest = principal();
    double along = 0, squares = 0;
    for (std::size_t i = 0; i < kFeatures; ++i) {
      double product = 0;
      for (std::size_t j = 0; j < kFeatures; ++j) product += moment_[i * kFeatures + j] * longest[j];
      along += longest[i] * product;
      squares += longest[i] * longest[i];
    }
    const double length = std::sqrt(squares);
    for (std::size_t i = 0; i < kFeatures; ++i) direction[i] = static_cast<float>(length > 0 ? longest[i] / length : 0);
    return !(kNormWeight * kNormWeight * spread * squares > along);
  }

  // Takes a sample of rows as integers about their mean, and returns the sum of squares of their norms.
  double centre_sample(Range range) {
    sampled_ = std::min(range.size(), kSampleRows);
    double peak = 0;
    for (std::size_t i = 0; i < sampled_; ++i) {
      const float* point = sampled_point(range, i);
      for (std::size_t k = 0; k < kPointFloats; ++k) peak = std::max(peak, std::abs(static_cast<double>(point[k])));
    }
    const double factor = kLargest / (peak > 0 ? peak : 1.0);
    double sums[kPointFloats] = {};
    for (std::size_t i = 0; i < sampled_; ++i) {
      const float* point = sampled_point(range, i);
      for (std::size_t k = 0; k < kPointFloats; ++k) {
        const double number = std::nearbyint(static_cast<double>(point[k]) * factor);
        (k < kFeatures ? centred_[i * kFeatures + k] : norms_[i]) = number;
        sums[k] += number;
      }
    }
    for (double& sum : sums) sum = std::nearbyint(sum / static_cast<double>(sampled_));
    double squares = 0;
    for (std::size_t i = 0; i < sampled_; ++i) {
      for (std::size_t k = 0; k < kFeatures; ++k) centred_[i * kFeatures + k] -= sums[k];
      squares += (norms_[i] - sums[kFeatures]) * (norms_[i] - sums[kFeatures]);
    }
    return squares;
  }

  const float* sampled_point(Range range, std::size_t i) const {
    const std::size_t at = range.size() <= kSampleRows ? i : split_mix(i) % range.size();
    return points_ + std::size_t{rows_[range.begin + at]} * kPointFloats;
  }

  // A column of a high power of the moment: nearly its first eigenvector. Zeros where the moment is zero.
  const double* principal() {
    power_ = moment_;
    if (!normalise()) return power_.data();
    for (int i = 0; i < kSquarings; ++i) {
      kernels_.square(power_.data(), next_.data());
      power_.swap(next_);
      normalise();
    }
    std::size_t best = 0;
    for (std::size_t i = 1; i < kFeatures; ++i)
      if (power_[i * kFeatures + i] > power_[best * kFeatures + best]) best = i;
    return power_.data() + best * kFeatures;  // the matrix is symmetric
  }

  bool normalise() {
    double largest = 0;
    for (std::size_t i = 0; i < kFeatures; ++i) largest = std::max(largest, power_[i * kFeatures + i]);
    if (largest <= 0) return false;
    for (double& number : power_) number /= largest;
    return true;
  }

  // Moves the rows with the `half` smallest keys to the front; of equal keys those of smaller numbers.
  void part(Range range, std::size_t half) {
    sorted_ = keys_;
    const auto nth = sorted_.begin() + static_cast<std::ptrdiff_t>(half - 1);
    std::nth_element(sorted_.begin(), nth, sorted_.end());
    const float limit = *nth;
    auto equal = static_cast<std::ptrdiff_t>(half);
    for (const float key : keys_) equal -= key < limit ? 1 : 0;
    upper_.resize(range.size());
    std::uint32_t *low = rows_ + range.begin, *high = upper_.data();
    for (std::size_t i = 0; i < range.size(); ++i) {
      const std::uint32_t row = rows_[range.begin + i];
      const bool first = keys_[i] < limit || (keys_[i] == limit && equal-- > 0);
      *low = row;
      *high = row;
      low += first ? 1 : 0;
      high += first ? 0 : 1;
    }
    std::memcpy(rows_ + range.begin + half, upper_.data(), (range.size() - half) * sizeof *rows_);
  }

  const Writing& kernels_;
  const float* points_;
  std::size_t tile_rows_, sampled_ = 0;
  std::uint32_t* rows_;
  std::vector<double> centred_, norms_, moment_, power_, next_;
  std::vector<float> keys_, sorted_;
  std::vector<std::uint32_t> upper_;
};

// Ranges that threads can share out: halves of halves, as long as there are few and one is large.
std::vector<Range> first_ranges(Splitter& splitter, std::size_t n, std::size_t wanted) {
  std::vector<Range> ranges{{0, n}};
  for (bool grew = true; grew && ranges.size() < wanted;) {
    grew = false;
    std::vector<Range> halves;
    for (const Range& range : ranges) {
      const auto two = splitter.split(range);
      grew = grew || two.has_value();
      if (two) halves.insert(halves.end(), {two->first, two->second});
    }
    if (grew) ranges = halves;
  }
  return ranges;
}

// Sums of kFeatures such numbers stay within float32's range.
float narrow(double number) { return static_cast<float>(std::clamp(number, -0x1p122, 0x1p122)); }

}  // namespace

void write_points(const Writing& kernels, const Weights& directions, const float* rows, std::size_t n, std::size_t dim,
                  std::size_t count, float* points) {
  constexpr std::size_t kRows = 16;
  Turn turn(kernels, directions, kRows, dim);
  for (std::size_t at = 0; at < n; at += kRows) {
    const std::size_t rows_here = std::min(kRows, n - at);
    turn(rows + at * dim, rows_here);
    for (std::size_t r = 0; r < rows_here; ++r) {
      float* point = points + (at + r) * kPointFloats;
      const double *turned = turn.turned.data() + r * directions.columns(), step = turn.facts[r].unit / kWeight;
      for (std::size_t c = 0; c < count; ++c) point[c] = narrow(turned[c] * step);
      std::fill(point + count, point + kFeatures, 0.0f);
      point[kFeatures] = narrow(std::sqrt(static_cast<double>(turn.facts[r].squares)) * turn.facts[r].unit);
    }
  }
}

void split_rows(const Writing& kernels, const float* points, std::size_t tile_rows, std::uint32_t* rows,
                std::size_t n) {
  if (n > tile_rows) Splitter(kernels, points, tile_rows, rows).split_all({0, n});
}

void split_rows_together(const Writing& kernels, const float* points, std::size_t tile_rows, std::uint32_t* rows,
                         std::size_t n) {
  const std::size_t threads = thread_count(0);
  Splitter splitter(kernels, points, tile_rows, rows);
  const std::vector<Range> ranges = first_ranges(splitter, n, threads == 1 ? 1 : 4 * threads);
  for_parts(ranges.size(), 1, [&](std::size_t start, std::size_t stop) {
    Splitter own(kernels, points, tile_rows, rows);
    for (std::size_t i = start; i < stop; ++i) own.split_all(ranges[i]);
  });
}

void order_rows(const Writing& kernels, const float* points, std::size_t n, std::size_t tile_rows,
                std::int64_t* order) {
  std::vector<std::uint32_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0u);
  split_rows_together(kernels, points, tile_rows, rows.data(), n);
  std::copy(rows.begin(), rows.end(), order);
}

}  // namespace fllm::writing
