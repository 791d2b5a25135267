#include "search/worker.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

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
// Memory takes as long as the copying of so many rows.
constexpr std::size_t kRowsAhead = 24;

// Decoded rows are written and read again at once: they should not leave the nearest cache between.
std::size_t block_rows(Codec codec, std::size_t padded_dim) {
  constexpr std::size_t kValueBytes = 16 << 10;
  if (codec == Codec::int8) return kBlockRows;
  const std::size_t rows = kValueBytes / (sizeof(float) * padded_dim) / kernels::kItemLanes * kernels::kItemLanes;
  return std::clamp(rows, kernels::kItemLanes, kBlockRows);
}

// What a float32 score must reach for its exact score to be able to reach `threshold`: the exact score was rounded to
// float32 itself, and numbers near 0 carry an absolute error from underflow.
float lowered(float threshold) {
  if (threshold == -kInfinity) return threshold;
  return static_cast<float>(threshold - std::abs(static_cast<double>(threshold)) * 0x1p-21 - 1e-30);
}

}  // namespace

Worker::Worker(Pass& pass)
    : pass_(pass),
      table_(pass.table()),
      kernels_(pass.kernels()),
      queries_(pass.queries()),
      codec_(table_.layout().codec),
      dim_(table_.layout().dim),
      code_bytes_(fllm::code_bytes(codec_, dim_)),
      group_bytes_(fllm::group_bytes(codec_, dim_)),
      block_rows_(block_rows(codec_, queries_.padded_dim())),
      denominators_(queries_.count()),
      span_denominators_(queries_.count()),
      gathered_(queries_.groups()),
      thresholds_(queries_.groups() * kGroupColumns),
      lane_thresholds_(kGroupColumns),
      references_(queries_.groups() * kGroupColumns),
      exp_sums_(queries_.groups() * kGroupColumns),
      high_(kBlockRows * kGroupColumns),
      low_(kBlockRows * kGroupColumns),
      values_(codec_ == Codec::int8 ? 0 : kBlockRows * queries_.padded_dim()),
      norms_(kBlockRows),
      errors_(kBlockRows),
      sums_(kBlockRows * kGroupColumns),
      scores_(kBlockRows),
      uppers_(kBlockRows),
      noise_(kBlockRows),
      hits_(kBlockRows * kGroupColumns),
      indices_(kBlockRows),
      survivors_(pass.uses_sketch() ? SketchScan::kChunkRows : 0),
      backlogs_(pass.uses_sketch() ? queries_.count() : 0),
      gathered_codes_(pass.uses_sketch() && codec_ == Codec::int8 ? kBlockRows * dim_ : 0),
      gathered_scales_(kBlockRows),
      gathered_bias_(kBlockRows) {
  for (const Column& column : pass.columns()) {
    best_.emplace_back(column.search->k);
    if (pass.uses_sketch()) sketches_.emplace_back(table_, kernels_, column);
  }
  std::fill_n(thresholds_.data(), thresholds_.size(), kInfinity);
  std::fill_n(exp_sums_.data(), exp_sums_.size(), 0.0f);
}

void Worker::scan(const Span& span, const std::vector<bool>& active) {
  active_ = active;
  // Every span begins afresh, so that its sums do not depend on which spans this thread happened to get before.
  std::fill_n(references_.data(), references_.size(), -kInfinity);
  std::fill(span_denominators_.begin(), span_denominators_.end(), LogSumExp());
  for (std::size_t column = 0; column < best_.size(); ++column) refresh_threshold(column);
  if (pass_.uses_sketch()) {
    scan_sketch(span);
  } else {
    score_rows(span);
  }
  for (std::size_t column = 0; column < best_.size(); ++column) {
    if (active_[column]) denominators_[column].add(span_denominators_[column].m, span_denominators_[column].l);
  }
}

// The groups of the chosen columns: packed together where that takes fewer of them than the pass has.
void Worker::choose_groups() {
  groups_.clear();
  const auto lanes = [](std::size_t columns) { return (columns + kernels::kItemLanes - 1) / kernels::kItemLanes; };
  // Denominators are kept by column, in the order of the pass.
  if (pass_.wants_denominator() || lanes(chosen_.size()) == lanes(queries_.count())) {
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
  const std::size_t few = pass_.wants_denominator() ? kFewColumnsOfTwoLimbs : kFewColumns;
  const bool one_by_one = pass_.samples() || chosen_.size() <= few;
  if (!one_by_one) choose_groups();
  for (std::size_t offset = 0; offset < span.rows; offset += block_rows_) {
    const Rows block = rows(*span.tile, span.first + offset, std::min(block_rows_, span.rows - offset));
    if (one_by_one) {
      for (const std::uint32_t column : chosen_) score_one(block, column);
    } else {
      for (const QueryGroup& group : groups_) score_group(block, group);
    }
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
    // A deadline leaves no time for what waits; and what the denominator lacks as an estimate must be scored.
    if (pass_.wants_denominator() || pass_.columns()[column].search->deadline) settle(column);
  }
}

void Worker::put_off_survivors(const Span& span, std::size_t offset, std::size_t rows, std::size_t column) {
  LogSumExp* denominator = pass_.wants_denominator() ? &span_denominators_[column] : nullptr;
  const UserFilter* filter = denominator == nullptr ? pass_.columns()[column].search->filter : nullptr;
  SketchScan& sketch = sketches_[column];
  const std::size_t found =
      sketch.survivors(*span.tile, span.first + offset, rows, thresholds_[column], denominator, survivors_.data());
  Backlog& backlog = backlogs_[column];
  for (std::size_t i = 0; i < found; ++i) {
    const auto row = static_cast<std::uint32_t>(offset + survivors_[i]);
    if (filter != nullptr && !filter->allows(span.tile->first_row + span.first + row)) continue;
    backlog.add({&span, row, sketch.upper(survivors_[i])});
  }
  if (denominator != nullptr) return;
  if (backlog.doubled(rows)) settle_best(column, first_of_backlog(column));
  if (backlog.size() >= kLongestBacklog) settle(column);
}

void Worker::finish() {
  if (!pass_.uses_sketch()) return;
  active_.assign(best_.size(), true);
  for (std::size_t column = 0; column < best_.size(); ++column) {
    refresh_threshold(column);
    settle(column);
  }
}

void Worker::settle(std::size_t column) {
  if (!pass_.wants_denominator()) settle_best(column, first_of_backlog(column));
  settle_best(column, backlogs_[column].size());
}

// How many of the rows that wait give a threshold near the one that all of them would give.
std::size_t Worker::first_of_backlog(std::size_t column) const { return 2 * pass_.columns()[column].search->k + 32; }

void Worker::settle_best(std::size_t column, std::size_t count) {
  backlogs_[column].take(count, pass_.wants_denominator() ? -kInfinity : thresholds_[column], waiting_);
  for (std::size_t first = 0; first < waiting_.size(); first += kBlockRows) {
    score_waiting(column, first, std::min(kBlockRows, waiting_.size() - first));
  }
}

// Scores rows that lie apart, int8 ones as a block that they are gathered to.
void Worker::score_waiting(std::size_t column, std::size_t first, std::size_t count) {
  const Backlog::Row* waiting = waiting_.data() + first;
  if (codec_ == Codec::int8) {
    for (std::size_t r = 0; r < count; ++r) gather(waiting[r], r);
    kernels_.int8_one(reinterpret_cast<const std::int8_t*>(gathered_codes_.data()), count, dim_,
                      queries_.one_high(column), queries_.one_low(column), high_.data(), low_.data());
    const float* bias = table_.layout().bias ? gathered_bias_.data() : nullptr;
    const kernels::Block block{count, gathered_scales_.data(), gathered_scales_.data(), bias};
    kernels_.finish_int8_one(high_.data(), low_.data(), block, queries_.scale(column), scores_.data());
  } else {
    for (std::size_t r = 0; r < count; ++r) {
      scores_[r] = exact_score(rows(*waiting[r].span->tile, waiting[r].in_tile(), 1), 0, column);
    }
  }
  for (std::size_t r = 0; r < count; ++r) {
    if (pass_.wants_denominator()) span_denominators_[column].add(scores_[r], 1.0);
    if (scores_[r] >= thresholds_[column]) {
      offer({waiting[r].span->tile, waiting[r].in_tile(), 1, {}}, 0, column, scores_[r], scores_[r]);
    }
  }
}

// Copies a row to place `at` of the gathered block.
void Worker::gather(const Backlog::Row& row, std::size_t at) {
  // The rows lie far apart: some are always on their way while another is copied.
  const std::size_t later = static_cast<std::size_t>(&row - waiting_.data()) + kRowsAhead;
  if (later < waiting_.size()) {
    const Tile& tile = *waiting_[later].span->tile;
    const std::size_t number = waiting_[later].in_tile();
    const std::uint8_t* from = tile.codes + number * code_bytes_;
    for (std::size_t byte = 0; byte < code_bytes_; byte += 64) __builtin_prefetch(from + byte);
    __builtin_prefetch(tile.scales + number);
  }
  const Tile& tile = *row.span->tile;
  const std::size_t number = row.in_tile();
  std::copy_n(tile.codes + number * code_bytes_, code_bytes_, gathered_codes_.data() + at * code_bytes_);
  gathered_scales_[at] = tile.scales[number];
  if (tile.bias != nullptr) gathered_bias_[at] = tile.bias[number];
}

Worker::Rows Worker::rows(const Tile& tile, std::size_t first, std::size_t count) {
  Rows rows{&tile, first, count, {}};
  rows.block = {rows.count, tile.scales + first, tile.scales + first,
                tile.bias == nullptr ? nullptr : tile.bias + first};
  if (codec_ != Codec::int8) {
    decode(rows);
    for (std::size_t r = 0; r < rows.count; ++r) errors_[r] = rows.block.scales[r] * norms_[r];
    rows.block.row_errors = errors_.data();
  }
  return rows;
}

const std::uint8_t* Worker::codes(const Rows& rows) const { return rows.tile->codes + rows.first * code_bytes_; }

void Worker::decode(const Rows& rows) {
  const std::uint8_t* groups = rows.tile->groups == nullptr ? nullptr : rows.tile->groups + rows.first * group_bytes_;
  (kernels_.*facts_of(codec_).decode)(codes(rows), groups, rows.count, dim_, values_.data(), norms_.data());
}

void Worker::score_one(const Rows& rows, std::size_t column) {
  const float* uppers = scores_.data();
  if (codec_ == Codec::int8) {
    kernels_.int8_one(reinterpret_cast<const std::int8_t*>(codes(rows)), rows.count, dim_, queries_.one_high(column),
                      queries_.one_low(column), high_.data(), low_.data());
    kernels_.finish_int8_one(high_.data(), low_.data(), rows.block, queries_.scale(column), scores_.data());
  } else {
    kernels_.float_one(values_.data(), rows.count, queries_.padded_dim(), queries_.one_float(column), sums_.data());
    kernels_.finish_float_one(sums_.data(), rows.block, queries_.float_scale(column), queries_.error(column),
                              scores_.data(), uppers_.data());
    uppers = uppers_.data();
  }
  if (pass_.wants_denominator()) {
    kernels_.accumulate_one(scores_.data(), rows.count, references_.data() + column, exp_sums_.data() + column);
    fold(column, 1);
  }
  if (pass_.samples()) {
    keep_sampled(rows, column);
  } else {
    keep_hits(rows, column, uppers);
  }
}

void Worker::keep_hits(const Rows& rows, std::size_t column, const float* uppers) {
  const std::size_t found = kernels_.at_least(uppers, rows.count, thresholds_[column], indices_.data());
  for (std::size_t i = 0; i < found; ++i) {
    const std::size_t row = indices_[i];
    const float score = codec_ == Codec::int8 ? scores_[row] : exact_score(rows, row, column);
    offer(rows, row, column, score, score);
  }
}

void Worker::keep_sampled(const Rows& rows, std::size_t column) {
  const Column& wanted = pass_.columns()[column];
  const std::uint64_t seed = wanted.search->seeds == nullptr ? 0 : wanted.search->seeds[wanted.item];
  kernels_.gumbel(seed, rows.tile->ids + rows.first, rows.count, noise_.data());
  for (std::size_t row = 0; row < rows.count; ++row) {
    const double upper = codec_ == Codec::int8 ? scores_[row] : uppers_[row];
    if (!(upper + noise_[row] >= thresholds_[column])) continue;
    const float score = codec_ == Codec::int8 ? scores_[row] : exact_score(rows, row, column);
    offer(rows, row, column, static_cast<float>(static_cast<double>(score) + noise_[row]), score);
  }
}

void Worker::score_group(const Rows& rows, const QueryGroup& group) {
  std::fill_n(lane_thresholds_.data(), kGroupColumns, kInfinity);
  for (std::size_t i = 0; i < group.count; ++i) lane_thresholds_[i] = thresholds_[group.columns[i]];
  const kernels::Items wanted{group.items, group.scales, group.errors, lane_thresholds_.data()};
  // With denominators, groups hold successive columns.
  const std::size_t first = group.columns[0];
  const kernels::Denominator running{references_.data() + first, exp_sums_.data() + first};
  const kernels::Denominator* denominator = pass_.wants_denominator() ? &running : nullptr;
  std::size_t found;
  if (codec_ == Codec::int8) {
    std::int32_t* low = group.low == nullptr ? nullptr : low_.data();
    kernels_.int8_many(reinterpret_cast<const std::int8_t*>(codes(rows)), rows.count, dim_, group.items, group.high,
                       group.low, high_.data(), low);
    found = kernels_.select_int8_many(high_.data(), low, rows.block, wanted, denominator, hits_.data());
  } else {
    kernels_.float_many(values_.data(), rows.count, queries_.padded_dim(), group.items, group.floats, sums_.data());
    found = kernels_.select_float_many(sums_.data(), rows.block, wanted, denominator, hits_.data());
  }
  for (std::size_t i = 0; i < found; ++i) {
    const std::size_t column = group.columns[hits_[i].item];
    const float score = exact_score(rows, hits_[i].row, column);
    offer(rows, hits_[i].row, column, score, score);
  }
  if (denominator != nullptr) fold(first, group.count);
}

float Worker::exact_score(const Rows& rows, std::size_t row, std::size_t column) {
  if (codec_ != Codec::int8) {
    const double scaled =
        exact_sum(row, column) * (static_cast<double>(rows.block.scales[row]) * queries_.scale(column));
    const double bias = rows.block.bias == nullptr ? 0.0 : static_cast<double>(rows.block.bias[row]);
    return static_cast<float>(scaled + bias);
  }
  std::int32_t high, low;
  float score;
  kernels_.int8_one(reinterpret_cast<const std::int8_t*>(codes(rows)) + row * dim_, 1, dim_, queries_.one_high(column),
                    queries_.one_low(column), &high, &low);
  const kernels::Block one{1, rows.block.scales + row, rows.block.row_errors + row,
                           rows.block.bias == nullptr ? nullptr : rows.block.bias + row};
  kernels_.finish_int8_one(&high, &low, one, queries_.scale(column), &score);
  return score;
}

double Worker::exact_sum(std::size_t row, std::size_t column) const {
  const float* values = values_.data() + row * queries_.padded_dim();
  const float* query = queries_.one_float(column);
  double sum = 0;
  for (std::size_t j = 0; j < dim_; ++j) sum += static_cast<double>(values[j]) * static_cast<double>(query[j]);
  return sum;
}

void Worker::offer(const Rows& rows, std::size_t row, std::size_t column, float key, float score) {
  const std::size_t in_tile = rows.first + row;
  const UserFilter* filter = pass_.columns()[column].search->filter;
  if (filter != nullptr && !filter->allows(rows.tile->first_row + in_tile)) return;
  Best& best = best_[column];
  if (!(key >= best.threshold())) return;
  const float before = best.threshold();
  best.add({key, score, rows.tile->ids[in_tile]});
  if (best.threshold() == before) return;
  pass_.share_threshold(column, best.threshold());
  refresh_threshold(column);
}

void Worker::refresh_threshold(std::size_t column) {
  thresholds_[column] =
      active_[column] ? lowered(std::max(best_[column].threshold(), pass_.shared_threshold(column))) : kInfinity;
}

void Worker::fold(std::size_t first, std::size_t count) {
  for (std::size_t column = first; column < first + count; ++column) {
    span_denominators_[column].add(references_[column], exp_sums_[column]);
    exp_sums_[column] = 0.0f;
  }
}

}  // namespace fllm
