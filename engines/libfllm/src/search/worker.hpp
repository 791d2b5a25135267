// What one thread does in a pass: score the rows of a span block by block, and keep the best.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "machine/aligned.hpp"
#include "search/backlog.hpp"
#include "search/best.hpp"
#include "search/denominator.hpp"
#include "search/live_rows.hpp"
#include "search/pass_facts.hpp"
#include "search/rows.hpp"
#include "search/sketch_scan.hpp"

namespace fllm {

class Worker {
 public:
  explicit Worker(PassFacts& pass);

  // Raises a column's threshold to the K-th best score of a tile, where it has so many, and scores as they are read are
  // exact. The users are not kept: the tile is still to be scanned.
  void look_ahead(const Tile& tile, std::size_t column);

  // Scores a span for the active columns.
  void scan(const Span& span, const std::vector<bool>& active);

  // Scores the rows that wait for it. To be called once, after the last span.
  void finish();

  const Best& best(std::size_t column) const { return best_[column]; }
  const LogSumExp& denominator(std::size_t column) const { return denominators_[column]; }

 private:
  void score_rows(const Span& span);
  void require_finite_scores(const RowBlock& rows);
  void choose_groups();
  void scan_sketch(const Span& span);
  void put_off_survivors(const Span& span, std::size_t offset, std::size_t rows, std::size_t column);
  void settle(std::size_t column);
  std::size_t first_of_backlog(std::size_t column) const;
  void settle_best(std::size_t column, std::size_t count);
  void score_waiting(std::size_t column, std::size_t first, std::size_t count);
  void score_group(const RowBlock& rows, std::size_t number, std::size_t live);
  void score_one(const RowBlock& rows, std::size_t column, std::uint64_t deleted);
  void keep_sampled(const RowBlock& rows, std::size_t column, const float* uppers);
  void keep_hits(const RowBlock& rows, std::size_t column, const float* uppers);
  float exact_score(const RowBlock& rows, std::size_t row, std::size_t column, const float* uppers);
  void offer(const Tile& tile, std::size_t row, std::size_t column, float key, float score);
  void refresh_threshold(std::size_t column);
  // Adds what a block of `live` rows that are not deleted has summed up at a place.
  void fold(std::size_t column, std::size_t place, std::size_t live);

  PassFacts& pass_;
  const kernels::Kernels& kernels_;
  const Queries& queries_;
  std::unique_ptr<Rows> rows_;
  LiveRows live_;
  std::vector<Best> best_;
  std::vector<LogSumExp> denominators_, span_denominators_;
  std::vector<bool> active_;
  std::vector<std::uint32_t> chosen_;  // active columns, and the groups that they make
  std::vector<QueryGroup> groups_;
  std::vector<GatheredGroup> gathered_;
  Aligned<float> thresholds_, lane_thresholds_;  // [padded columns], lowered by the rounding of scores; of one group
  Aligned<float> references_, sums_;             // [padded columns], by column or by its place in the groups
  Aligned<float> scores_;                        // [rows]
  std::vector<double> noise_;
  std::vector<std::int64_t> ids_;  // of the rows that noise is made for
  std::vector<kernels::Hit> hits_;
  std::vector<std::uint16_t> indices_;
  std::vector<std::optional<SketchScan>> sketches_;  // one a column, made when a span is read by it
  std::vector<std::uint16_t> survivors_;
  std::vector<Backlog> backlogs_;      // one a column
  std::vector<Backlog::Row> waiting_;  // taken from a backlog
};

}  // namespace fllm
