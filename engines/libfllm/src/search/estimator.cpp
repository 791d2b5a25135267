#include "search/estimator.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "machine/aligned.hpp"
#include "search/live_rows.hpp"
#include "search/rows.hpp"
#include "status.hpp"

namespace fllm {

namespace {

using kernels::kBlockRows;

constexpr std::size_t kChunkBlocks = 8;  // of the panel, that one thread scores between two looks at what is left
constexpr std::size_t kTilesRead = 16,
                      kTilesOfOne = 512;  // one tile in so many, or begun, is read in full, at most so many

// An empirical Bernstein bound, as Maurer and Pontil 2009, theorem 11, but for both sides and for a variance that is
// estimated within blocks of n = 64: with probability 0.95 the sum of independent numbers of [0, b] is off by at most
// sqrt(2 V L) + (1/3 + 2 sqrt(n / (n - 1))) b L, V being the estimate of its variance and L = ln(3 / 0.05), as three
// things may fail: the variance, the sum above and the sum below.
constexpr double kLogOfMiss = 4.0943445622221;
const double kDeviations = std::sqrt(2 * kLogOfMiss);
const double kRanges = (1.0 / 3.0 + 2.0 * std::sqrt(kBlockRows / (kBlockRows - 1.0))) * kLogOfMiss;

// What float32 sums lose of a sum of squares, relative to it: a variance may be that much larger than it seems.
constexpr double kLost = 4e-6;

// A proven error up to this is told in place of a smaller one that is merely likely.
constexpr double kSmall = 1e-3;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double relative(const LogSumExp& sum, double m) { return sum.l == 0.0 ? 0.0 : sum.l * std::exp(sum.m - m); }

}  // namespace

// What one thread scores rows with.
class Estimator::Scorer {
 public:
  explicit Scorer(const PassFacts& pass)
      : pass_(pass),
        rows_(make_rows(pass.table.layout(), pass.kernels, pass.queries)),
        live_(pass.table.tombstones()),
        scores_(kBlockRows),
        doubled_(kBlockRows) {}

  // Adds up a block of the panel for a column.
  void draw(const Panel& panel, std::size_t block, std::size_t column, const Known& known, Drawn& drawn) {
    const std::size_t first = block * kBlockRows, count = std::min(kBlockRows, panel.slots() - first);
    score(panel.tile(), first, kBlockRows, column);
    if (!all_finite(scores_.data(), kBlockRows)) {
      for (std::size_t r = 0; r < count; ++r) {
        if (!std::isfinite(scores_[r])) refuse(panel.row(first + r));
      }
    }
    std::fill(scores_.data() + count, scores_.data() + kBlockRows, LiveRows::kLowest);
    lower(panel.empty(), first);
    lower(known.excluded, first);
    if (*std::max_element(scores_.data(), scores_.data() + kBlockRows) > LiveRows::kLowest) add_up(count, drawn);
  }

  // Adds up all rows of a tile for a column.
  void read(const Tile& tile, std::size_t column, LogSumExp& sum) {
    for (std::size_t first = 0; first < tile.rows; first += kBlockRows) {
      const std::size_t count = std::min(kBlockRows, tile.rows - first);
      score(tile, first, count, column);
      for (std::size_t r = 0; r < count; ++r) {
        if (!std::isfinite(scores_[r])) refuse(tile.first_row + first + r);
        if (tile.has_deleted && !live_.holds(tile, first + r)) scores_[r] = LiveRows::kLowest;
      }
      const LogSumExp block = sum_of(scores_.data(), count);
      sum.add(block.m, block.l);
    }
  }

 private:
  // Lets rows of the block that begins with slot `first` count for nothing; `slots` ascend.
  void lower(const std::vector<std::uint32_t>& slots, std::size_t first) {
    auto slot = std::lower_bound(slots.begin(), slots.end(), first);
    for (; slot != slots.end() && *slot < first + kBlockRows; ++slot) scores_[*slot - first] = LiveRows::kLowest;
  }

  void score(const Tile& tile, std::size_t first, std::size_t count, std::size_t column) {
    for (std::size_t at = 0; at < count; at += rows_->block_rows()) {
      const RowBlock block = rows_->take(tile, first + at, std::min(rows_->block_rows(), count - at));
      rows_->score_one(block, column, scores_.data() + at);
    }
  }

  LogSumExp sum_of(const float* scores, std::size_t count) const {
    if (!pass_.link.exponential()) return {0.0, weights(scores, count).sum};
    float reference = -std::numeric_limits<float>::infinity(), sum = 0.0f;
    pass_.kernels.accumulate_one(scores, count, &reference, &sum);
    return {reference, sum};
  }

  struct Weights {
    double sum = 0.0, squares = 0.0;
  };

  // Of a power; rows that count for nothing have the lowest score.
  Weights weights(const float* scores, std::size_t count) const {
    Weights found;
    for (std::size_t r = 0; r < count; ++r) {
      const double weight = scores[r] > LiveRows::kLowest ? 1.0 + pass_.link.excess(scores[r]) : 0.0;
      found.sum += weight;
      found.squares += weight * weight;
    }
    return found;
  }

  // The variance of a sum of n numbers drawn: n / (n - 1) (sum of squares - square of sum / n). Of a block that is not
  // whole it is no more than the sum of squares.
  void add_up(std::size_t count, Drawn& drawn) {
    LogSumExp sum, squares;
    if (pass_.link.exponential()) {
      sum = sum_of(scores_.data(), kBlockRows);
      for (std::size_t r = 0; r < kBlockRows; ++r) doubled_[r] = std::max(2 * scores_[r], LiveRows::kLowest);
      squares = sum_of(doubled_.data(), kBlockRows);
    } else {
      const Weights found = weights(scores_.data(), kBlockRows);
      sum = {0.0, found.sum};
      squares = {0.0, found.squares};
    }
    drawn.sum.add(sum.m, sum.l);
    if (count < kBlockRows) return drawn.variance.add(squares.m, squares.l);
    constexpr double n = kBlockRows;
    const double mean = sum.l * sum.l / n * std::exp(2 * sum.m - squares.m);
    drawn.variance.add(squares.m, std::max(squares.l - mean, kLost * squares.l) * n / (n - 1));
  }

  [[noreturn]] void refuse(std::uint64_t row) const {
    const std::vector<Tile>& tiles = pass_.table.tiles();
    const auto after = std::upper_bound(tiles.begin(), tiles.end(), row,
                                        [](std::uint64_t wanted, const Tile& tile) { return wanted < tile.first_row; });
    const Tile& tile = *(after - 1);
    throw not_finite(pass_.table, tile, static_cast<std::size_t>(row - tile.first_row));
  }

  const PassFacts& pass_;
  std::unique_ptr<Rows> rows_;
  LiveRows live_;
  Aligned<float> scores_, doubled_;
};

Estimator::Estimator(const PassFacts& pass, const Panel& panel, const TileBounds* bounds)
    : pass_(pass),
      panel_(panel),
      bounds_(bounds),
      tiles_read_(
          bounds == nullptr ? 0 : std::min(kTilesRead, (pass.table.tiles().size() + kTilesOfOne - 1) / kTilesOfOne)),
      chunks_((panel.slots() + kChunkBlocks * kBlockRows - 1) / (kChunkBlocks * kBlockRows)),
      known_(pass.columns.size()),
      drawn_(chunks_ * pass.columns.size()),
      read_(tiles_read_ * pass.columns.size()) {}

void Estimator::estimate(std::vector<ItemAnswer>& answers, Pool& pool) {
  const std::size_t by_column = std::min(pool.threads(), answers.size());
  pool.run(by_column, [&](std::size_t number) {
    for (std::size_t column = number; column < answers.size(); column += by_column) prepare(column, answers[column]);
  });
  std::atomic<std::size_t> next = 0;
  const std::size_t threads = std::min(pool.threads(), chunks_ + read_.size());
  pool.run(threads, [&](std::size_t) { work(next); });
  pool.run(by_column, [&](std::size_t number) {
    for (std::size_t column = number; column < answers.size(); column += by_column) finish(column, answers[column]);
  });
}

// The rows that were found, and all rows of the most promising tiles, are counted apart.
void Estimator::prepare(std::size_t column, const ItemAnswer& answer) {
  Known& known = known_[column];
  if (bounds_ != nullptr) known.tiles = bounds_->promising(column, tiles_read_);
  std::sort(known.tiles.begin(), known.tiles.end());
  for (const std::size_t number : known.tiles) {
    const Tile& tile = pass_.table.tiles()[number];
    const std::uint64_t end = tile.first_row + tile.rows;
    for (std::size_t slot = panel_.slot_of(tile.first_row); slot < panel_.slots(); ++slot) {
      if (slot * panel_.part_rows() >= end) break;
      if (panel_.row(slot) >= tile.first_row && panel_.row(slot) < end) {
        known.excluded.push_back(static_cast<std::uint32_t>(slot));
      }
    }
  }
  for (const Candidate& user : answer.users) {
    if (is_read(known, user.row)) continue;
    known.sum.add(pass_.link.logit(user.score), 1.0);
    const std::size_t slot = panel_.slot_of(user.row);
    if (panel_.row(slot) == user.row) known.excluded.push_back(static_cast<std::uint32_t>(slot));
  }
  std::sort(known.excluded.begin(), known.excluded.end());
}

bool Estimator::is_read(const Known& known, std::uint64_t row) const {
  return std::any_of(known.tiles.begin(), known.tiles.end(), [&](std::size_t number) {
    const Tile& tile = pass_.table.tiles()[number];
    return row >= tile.first_row && row < tile.first_row + tile.rows;
  });
}

void Estimator::work(std::atomic<std::size_t>& next) {
  Scorer scorer(pass_);
  const std::size_t columns = known_.size(), blocks = (panel_.slots() + kBlockRows - 1) / kBlockRows;
  for (std::size_t task = next++; task < chunks_ + read_.size(); task = next++) {
    if (task >= chunks_) {
      const std::size_t number = task - chunks_, column = number / tiles_read_;
      scorer.read(pass_.table.tiles()[known_[column].tiles[number % tiles_read_]], column, read_[number]);
      continue;
    }
    for (std::size_t block = task * kChunkBlocks; block < std::min(blocks, (task + 1) * kChunkBlocks); ++block) {
      for (std::size_t column = 0; column < columns; ++column) {
        scorer.draw(panel_, block, column, known_[column], drawn_[task * columns + column]);
      }
    }
  }
}

void Estimator::finish(std::size_t column, ItemAnswer& answer) {
  Drawn drawn;
  for (std::size_t chunk = 0; chunk < chunks_; ++chunk) {
    const Drawn& part = drawn_[chunk * known_.size() + column];
    drawn.sum.add(part.sum.m, part.sum.l);
    drawn.variance.add(part.variance.m, part.variance.l);
  }
  LogSumExp& counted = known_[column].sum;
  for (std::size_t i = 0; i < tiles_read_; ++i) {
    counted.add(read_[column * tiles_read_ + i].m, read_[column * tiles_read_ + i].l);
  }
  const auto part = static_cast<double>(panel_.part_rows());
  const double m = std::max(drawn.sum.m, counted.m);
  const double known = relative(counted, m), sum = relative(drawn.sum, m);
  const double total = known + part * sum;
  answer.logsumexp = m + std::log(total);
  const double most = ceiling(column, answer);
  const double off = part * (kDeviations * std::sqrt(relative(drawn.variance, 2 * m)) + kRanges * std::exp(most - m));
  const double least = known + sum;  // these rows are there
  const double likely = std::max(std::log1p(off / total), std::log(total / std::max(total - off, least)));
  const double accepted = std::max(likely, kSmall);
  const double proven_ceiling = proves_ceiling(column, answer) ? most : kInfinity;
  const double upper = upper_sum(column, known, m, proven_ceiling, total * std::exp(accepted));
  const double proven = std::max(std::log(std::max(upper / total, 1.0)), std::log(total / least));
  const bool certain = proven <= accepted;
  answer.tell_error(certain ? proven : likely, certain);
}

// Whether no row that was not found has a higher score than those that were.
bool Estimator::proves_ceiling(std::size_t column, const ItemAnswer& answer) const {
  const Search& search = *pass_.columns[column].search;
  return answer.complete && search.exact && search.filter == nullptr && answer.users.size() == search.k;
}

// What no logit of a row that is not counted apart exceeds, or +infinity.
double Estimator::ceiling(std::size_t column, const ItemAnswer& answer) const {
  const Search& search = *pass_.columns[column].search;
  if (answer.complete && search.filter == nullptr && answer.users.size() == search.k) {
    return pass_.link.logit(answer.users.back().score);
  }
  double highest = bounds_ == nullptr ? kInfinity : -kInfinity;
  const std::vector<std::size_t>& read = known_[column].tiles;
  for (std::size_t tile = 0; bounds_ != nullptr && tile < pass_.table.tiles().size(); ++tile) {
    const double upper = bounds_->upper(tile, column);
    if (upper > highest && !std::binary_search(read.begin(), read.end(), tile)) highest = upper;
  }
  return pass_.link.logit(highest);
}

double Estimator::upper_sum(std::size_t column, double known, double m, double ceiling, double enough) const {
  if (bounds_ == nullptr) return kInfinity;
  const std::vector<std::size_t>& read = known_[column].tiles;
  double sum = known;
  for (std::size_t tile = 0; tile < pass_.table.tiles().size(); ++tile) {
    if (std::binary_search(read.begin(), read.end(), tile)) continue;
    const double upper = std::min(pass_.link.logit(bounds_->upper(tile, column)), ceiling);
    sum += static_cast<double>(pass_.table.tiles()[tile].rows) * std::exp(upper - m);
    if (sum > enough) return kInfinity;
  }
  return sum;
}

}  // namespace fllm
