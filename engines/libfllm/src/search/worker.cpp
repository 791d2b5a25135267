#include "search/worker.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "status.hpp"

namespace fllm {

namespace {

using kernels::kBlockRows;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Up to so many columns, one at a time is faster than the many-item kernel with its columns padded to 16; that kernel
// takes two limbs, and twice the time, when a denominator is wanted.
constexpr std::size_t kFewColumns = 4;
constexpr std::size_t kFewColumnsOfTwoLimbs = 7;

// Rows of a sketch that wait to be scored: as many as lie in a near cache.
constexpr std::size_t kLongestBacklog = 1 << 13;

// What a float32 score must reach for its exact score to be able to reach `threshold`: the exact score was rounded to
// float32 itself, and numbers near 0 carry an absolute error from underflow.
float lowered(float threshold) {
  if (threshold == -kInfinity) return threshold;
  return static_cast<float>(threshold - std::abs(static_cast<double>(threshold)) * 0x1p-21 - 1e-30);
}

}  // namespace

Worker::Worker(PassFacts& pass)
    : pass_(pass),
      kernels_(pass.kernels),
      queries_(pass.queries),
      rows_(make_rows(pass.table.layout(), pass.kernels, pass.queries)),
      live_(pass.table.tombstones()),
      denominators_(queries_.count()),
      span_denominators_(queries_.count()),
      gathered_(queries_.groups()),
      thresholds_(queries_.groups() * kGroupColumns),
      lane_thresholds_(kGroupColumns),
      references_(queries_.groups() * kGroupColumns),
      sums_(queries_.groups() * kGroupColumns),
      scores_(kBlockRows),
      noise_(kBlockRows),
      ids_(kBlockRows),
      hits_(kBlockRows * kGroupColumns),
      indices_(kBlockRows),
      sketches_(pass.sketch_columns > 0 ? queries_.count() : 0),
      survivors_(pass.sketch_columns > 0 ? SketchScan::kChunkRows : 0),
      backlogs_(sketches_.size()) {
  for (const Column& column : pass.columns) best_.emplace_back(column.search->k);
  std::fill_n(thresholds_.data(), thresholds_.size(), kInfinity);
}

void Worker::look_ahead(const Tile& tile, std::size_t column) {
  const Search& search = *pass_.columns[column].search;
  std::vector<float> known;
  known.reserve(tile.rows);
  for (std::size_t first = 0; first < tile.rows; first += rows_->block_rows()) {
    const RowBlock block = rows_->take(tile, first, std::min(rows_->block_rows(), tile.rows - first));
    if (rows_->score_one(block, column, scores_.data()) != scores_.data()) return;
    for (std::size_t r = 0; r < block.count; ++r) {
      if (tile.has_deleted && !live_.holds(tile, first + r)) continue;
      if (search.filter != nullptr && !search.filter->allows(tile.first_row + first + r)) continue;
      if (std::isfinite(scores_[r])) known.push_back(scores_[r]);
    }
  }
  if (search.k > known.size()) return;
  const auto last = known.begin() + static_cast<std::ptrdiff_t>(search.k - 1);
  std::nth_element(known.begin(), last, known.end(), std::greater<>());
  pass_.thresholds.raise(column, *last);
}

void Worker::scan(const Span& span, const std::vector<bool>& active) {
  active_ = active;
  // Every span begins afresh, so that its sums do not depend on which spans this thread happened to get before.
  std::fill_n(references_.data(), references_.size(), -kInfinity);
  std::fill_n(sums_.data(), sums_.size(), 0.0f);
  std::fill(span_denominators_.begin(), span_denominators_.end(), LogSumExp());
  for (std::size_t column = 0; column < best_.size(); ++column) refresh_threshold(column);
  const auto wanting = static_cast<std::size_t>(std::count(active_.begin(), active_.end(), true));
  if (wanting <= pass_.sketch_columns) {
    scan_sketch(span);
  } else {
    score_rows(span);
  }
  for (std::size_t column = 0; column < best_.size(); ++column) {
    if (!pass_.wants_denominator || !active_[column]) continue;
    LogSumExp& denominator = denominators_[column];
    denominator.add(span_denominators_[column].m, span_denominators_[column].l);
    pass_.negligible.raise(column, static_cast<float>(denominator.value()) + pass_.negligible_share);
  }
}

// The groups of the chosen columns: packed together where that takes fewer of them than the pass has.
void Worker::choose_groups() {
  groups_.clear();
  const auto lanes = [](std::size_t columns) { return (columns + kernels::kItemLanes - 1) / kernels::kItemLanes; };
  if (lanes(chosen_.size()) == lanes(queries_.count())) {
    for (std::size_t number = 0; number < queries_.groups(); ++number) groups_.push_back(queries_.group(number));
    return;
  }
  for (std::size_t first = 0; first < chosen_.size(); first += kGroupColumns) {
    const std::size_t count = std::min(kGroupColumns, chosen_.size() - first);
    groups_.push_back(queries_.gather(chosen_.data() + first, count, gathered_[groups_.size()]));
  }
}

void Worker::score_rows(const Span& span) {
  chosen_.clear();
  for (std::uint32_t column = 0; column < queries_.count(); ++column) {
    if (active_[column]) chosen_.push_back(column);
  }
  const std::size_t few = pass_.wants_denominator ? kFewColumnsOfTwoLimbs : kFewColumns;
  const bool one_by_one = pass_.samples || chosen_.size() <= few;
  if (!one_by_one) choose_groups();
  const std::size_t block_rows = rows_->block_rows();
  for (std::size_t offset = 0; offset < span.rows; offset += block_rows) {
    RowBlock block = rows_->take(*span.tile, span.first + offset, std::min(block_rows, span.rows - offset));
    const std::uint64_t deleted = live_.deleted(block);
    if (static_cast<std::size_t>(std::popcount(deleted)) == block.count) continue;
    // One look at scales, norms and biases, however many columns: a number that is not finite shows in one of them.
    if (!all_finite(block.block.row_errors, block.count) || !all_finite(block.block.bias, block.count)) {
      require_finite_scores(block);
    }
    if (one_by_one) {
      for (const std::uint32_t column : chosen_) score_one(block, column, deleted);
    } else {
      if (pass_.wants_denominator) live_.mask(block, deleted);
      const std::size_t live = block.count - static_cast<std::size_t>(std::popcount(deleted));
      for (std::size_t number = 0; number < groups_.size(); ++number) score_group(block, number, live);
    }
  }
}

// A float32 norm may also overflow where the numbers of a row are finite, and so is its score.
void Worker::require_finite_scores(const RowBlock& rows) {
  for (std::size_t r = 0; r < rows.count; ++r) {
    if (!std::isfinite(rows_->exact_score(rows, r, 0))) throw not_finite(pass_.table, *rows.tile, rows.first + r);
  }
}

void Worker::scan_sketch(const Span& span) {
  for (std::size_t offset = 0; offset < span.rows; offset += SketchScan::kChunkRows) {
    const std::size_t count = std::min(SketchScan::kChunkRows, span.rows - offset);
    for (std::size_t column = 0; column < queries_.count(); ++column) {
      if (active_[column]) put_off_survivors(span, offset, count, column);
    }
  }
  for (std::size_t column = 0; column < queries_.count(); ++column) {
    // A deadline leaves no time for what waits.
    if (pass_.columns[column].search->deadline) settle(column);
  }
}

void Worker::put_off_survivors(const Span& span, std::size_t offset, std::size_t rows, std::size_t column) {
  const UserFilter* filter = pass_.columns[column].search->filter;
  if (!sketches_[column]) sketches_[column].emplace(pass_.table, kernels_, pass_.columns[column]);
  SketchScan& sketch = *sketches_[column];
  const std::size_t first = span.first + offset;
  const float* bias = span.tile->bias == nullptr ? nullptr : span.tile->bias + first;
  const std::size_t found = sketch.survivors(*span.tile, first, rows, bias, thresholds_[column], survivors_.data());
  Backlog& backlog = backlogs_[column];
  for (std::size_t i = 0; i < found; ++i) {
    const auto row = static_cast<std::uint32_t>(offset + survivors_[i]);
    if (span.tile->has_deleted && !live_.holds(*span.tile, span.first + row)) continue;
    if (filter != nullptr && !filter->allows(span.tile->first_row + span.first + row)) continue;
    // A bound that is not a number bounds nothing.
    const float upper = sketch.upper(survivors_[i]);
    backlog.add({&span, row, std::isnan(upper) ? kInfinity : upper});
  }
  if (backlog.doubled(rows)) settle_best(column, first_of_backlog(column));
  if (backlog.size() >= kLongestBacklog) settle(column);
}

void Worker::finish() {
  if (pass_.sketch_columns == 0) return;
  active_.assign(best_.size(), true);
  for (std::size_t column = 0; column < best_.size(); ++column) {
    refresh_threshold(column);
    settle(column);
  }
}

void Worker::settle(std::size_t column) {
  settle_best(column, first_of_backlog(column));
  settle_best(column, backlogs_[column].size());
}

// How many of the rows that wait give a threshold near the one that all of them would give.
std::size_t Worker::first_of_backlog(std::size_t column) const { return 2 * pass_.columns[column].search->k + 32; }

void Worker::settle_best(std::size_t column, std::size_t count) {
  backlogs_[column].take(count, thresholds_[column], waiting_);
  for (std::size_t first = 0; first < waiting_.size(); first += kBlockRows) {
    score_waiting(column, first, std::min(kBlockRows, waiting_.size() - first));
  }
}

void Worker::score_waiting(std::size_t column, std::size_t first, std::size_t count) {
  rows_->score_apart(waiting_, first, count, column, scores_.data());
  for (std::size_t r = 0; r < count; ++r) {
    const Backlog::Row& row = waiting_[first + r];
    if (!std::isfinite(scores_[r])) throw not_finite(pass_.table, *row.span->tile, row.in_tile());
    if (scores_[r] >= thresholds_[column]) offer(*row.span->tile, row.in_tile(), column, scores_[r], scores_[r]);
  }
}

void Worker::score_one(const RowBlock& rows, std::size_t column, std::uint64_t deleted) {
  const float* uppers = rows_->score_one(rows, column, scores_.data());
  if (pass_.wants_denominator) {
    LiveRows::lower(scores_.data(), deleted);
    if (pass_.link.exponential()) {
      kernels_.accumulate_one(scores_.data(), rows.count, references_.data() + column, sums_.data() + column);
    } else {
      sums_[column] = kernels_.powers_one(scores_.data(), rows.count, pass_.link.exponent);
    }
    fold(column, column, rows.count - static_cast<std::size_t>(std::popcount(deleted)));
  }
  if (pass_.samples) {
    keep_sampled(rows, column, uppers);
  } else {
    keep_hits(rows, column, uppers);
  }
}

void Worker::keep_hits(const RowBlock& rows, std::size_t column, const float* uppers) {
  const std::size_t found = kernels_.not_below(uppers, rows.count, thresholds_[column], indices_.data());
  for (std::size_t i = 0; i < found; ++i) {
    const float score = exact_score(rows, indices_[i], column, uppers);
    offer(*rows.tile, rows.first + indices_[i], column, score, score);
  }
}

void Worker::keep_sampled(const RowBlock& rows, std::size_t column, const float* uppers) {
  const Column& wanted = pass_.columns[column];
  const std::uint64_t seed = wanted.search->seeds == nullptr ? 0 : wanted.search->seeds[wanted.item];
  const std::int64_t* ids = rows.tile->ids + rows.first;
  const kernels::Reach reach{thresholds_[column], pass_.link.exponent};
  const std::size_t found = kernels_.may_reach(seed, ids, uppers, rows.count, reach, indices_.data());
  for (std::size_t i = 0; i < found; ++i) ids_[i] = ids[indices_[i]];
  kernels_.gumbel(seed, ids_.data(), found, noise_.data());
  for (std::size_t i = 0; i < found; ++i) {
    const std::size_t row = indices_[i];
    if (!(pass_.link.logit(uppers[row]) + noise_[i] >= thresholds_[column])) continue;
    const float score = exact_score(rows, row, column, uppers);
    offer(*rows.tile, rows.first + row, column, static_cast<float>(pass_.link.logit(score) + noise_[i]), score);
  }
}

// After score_one, whose scores are exact where nothing lies above them.
float Worker::exact_score(const RowBlock& rows, std::size_t row, std::size_t column, const float* uppers) {
  return uppers == scores_.data() ? scores_[row] : rows_->exact_score(rows, row, column);
}

void Worker::score_group(const RowBlock& rows, std::size_t number, std::size_t live) {
  const QueryGroup& group = groups_[number];
  std::fill_n(lane_thresholds_.data(), kGroupColumns, kInfinity);
  for (std::size_t i = 0; i < group.count; ++i) lane_thresholds_[i] = thresholds_[group.columns[i]];
  const kernels::Items wanted{group.items, group.scales, group.errors, lane_thresholds_.data()};
  // References stay with the places that columns have in the groups of a span.
  const std::size_t first = number * kGroupColumns;
  const kernels::Denominator running{references_.data() + first, sums_.data() + first, pass_.link.exponent};
  const kernels::Denominator* denominator = pass_.wants_denominator ? &running : nullptr;
  const std::size_t found = rows_->select(rows, group, wanted, denominator, hits_.data());
  for (std::size_t i = 0; i < found; ++i) {
    const std::size_t column = group.columns[hits_[i].item];
    const float score = rows_->exact_score(rows, hits_[i].row, column);
    offer(*rows.tile, rows.first + hits_[i].row, column, score, score);
  }
  if (denominator == nullptr) return;
  for (std::size_t i = 0; i < group.count; ++i) fold(group.columns[i], first + i, live);
}

void Worker::offer(const Tile& tile, std::size_t row, std::size_t column, float key, float score) {
  const UserFilter* filter = pass_.columns[column].search->filter;
  if (tile.has_deleted && !live_.holds(tile, row)) return;
  if (filter != nullptr && !filter->allows(tile.first_row + row)) return;
  Best& best = best_[column];
  if (!(key >= best.threshold())) return;
  const float before = best.threshold();
  best.add({key, score, tile.ids[row], tile.first_row + row});
  if (best.threshold() == before) return;
  pass_.thresholds.raise(column, best.threshold());
  refresh_threshold(column);
}

void Worker::refresh_threshold(std::size_t column) {
  thresholds_[column] =
      active_[column] ? lowered(std::max(best_[column].threshold(), pass_.thresholds.of(column))) : kInfinity;
}

void Worker::fold(std::size_t column, std::size_t place, std::size_t live) {
  LogSumExp& denominator = span_denominators_[column];
  if (pass_.link.exponential()) {
    denominator.add(references_[place], sums_[place]);
  } else {
    denominator.add(0.0, static_cast<double>(live) + static_cast<double>(sums_[place]));
  }
  sums_[place] = 0.0f;
}

}  // namespace fllm
