#include "search/pass.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>

#include "search/engine.hpp"
#include "search/estimator.hpp"

namespace fllm {

namespace {

constexpr std::size_t kTurnBytes = 512 << 10;  // of codes: long enough to amortise, short enough for a deadline
constexpr std::size_t kTurnProducts = std::size_t{1} << 26;  // multiply-adds, about half a millisecond of a core

// What up to so many columns read of their sketches costs less than scoring every row once for all of them: where a
// sketch has all dimensions, without one for rows that are decoded to float32 first, and with it for those. Measured on
// rows whose bounds rule nothing out by tiles; a sketch of fewer dimensions costs less in proportion.
constexpr std::size_t kSketchColumns = 4, kSketchColumnsOfDecoded = 6;
constexpr std::size_t kLookAheadColumns = 8;  // what looking ahead pays for
// What tiles that are left out may add to a denominator, relative to it: far less than float32 sums lose, or what makes
// a logarithm of up to 30 certain to 1e-3 with what these lose (docs/internals/log_probabilities.md).
constexpr double kNegligible = 0x1p-20, kNegligibleCertified = 7e-4;

// Of how many columns the sketch is read; where more want a span, its rows are scored.
std::size_t sketch_columns(const Table& table, const std::vector<Column>& columns) {
  const Search& search = *columns.front().search;
  if (table.sketches().empty() || search.mode != Mode::topk || Pass::sums_rows(table, search)) return 0;
  const Layout& layout = table.layout();
  const bool decoded = facts_of(layout.codec).decode != nullptr;
  return std::max<std::size_t>(1,
                               (decoded ? kSketchColumnsOfDecoded : kSketchColumns) * layout.dim / layout.sketch_dims);
}

PassFacts facts(const Table& table, const kernels::Kernels& kernels, std::vector<Column> columns) {
  const Search& search = *columns.front().search;
  const bool wants_denominator = Pass::sums_rows(table, search);
  const double share = search.log_probs == LogProbs::certified ? kNegligibleCertified : kNegligible;
  const std::size_t sketched = sketch_columns(table, columns);
  Queries queries(table.layout(), kernels, columns, !wants_denominator);
  const std::size_t count = columns.size();
  return {table,
          kernels,
          table.layout().link,
          std::move(columns),
          wants_denominator,
          search.mode == Mode::sample,
          sketched,
          std::move(queries),
          SharedThresholds(count),
          SharedThresholds(count),
          static_cast<float>(std::log(share / static_cast<double>(table.layout().stored_rows)))};
}

// Brings tiles in before they are wanted. Asking costs time, so where tiles turn out to be in memory it asks ever less.
class ReadAhead {
 public:
  explicit ReadAhead(const Table& table) : table_(table) {}

  void want(const Tile& tile) {
    if (&tile == last_) return;
    last_ = &tile;
    if (pause_ > 0) {
      --pause_;
      return;
    }
    length_ = table_.prefetch(tile) ? 0 : std::min<std::size_t>(2 * length_ + 1, kLongestPause);
    pause_ = length_;
  }

 private:
  static constexpr std::size_t kLongestPause = 31;

  const Table& table_;
  const Tile* last_ = nullptr;
  std::size_t pause_ = 0, length_ = 0;
};

}  // namespace

// Hands out spans, a few at a time where they are short, and knows which columns still want them. A search whose
// deadline has passed gets no further span, but the first is scored for everybody.
class Pass::Turns {
 public:
  Turns(const Pass& pass, std::vector<Span> spans, std::size_t threads)
      : pass_(pass), spans_(std::move(spans)), threads_(threads), ended_(pass.facts_.columns.size(), spans_.size()) {}

  // Scores spans until no column wants any more, on the calling thread.
  void work(Worker& worker) {
    look_ahead(worker);
    ReadAhead ahead(pass_.facts_.table);
    std::vector<bool> live(ended_.size()), active(ended_.size());
    for (std::size_t first = 0, last = take(live, first); first < last; last = take(live, first)) {
      for (; first < last; ++first) {
        if (!choose(spans_[first], live, active)) continue;
        const std::size_t later = first + threads_ * (last - first);
        if (later < spans_.size()) ahead.want(*spans_[later].tile);
        worker.scan(spans_[first], active);
      }
    }
    worker.finish();
  }

  // Rows of a column that were scored or ruled out, given that scores below `threshold` were not wanted.
  std::uint64_t rows_decided(std::size_t column, float threshold) const {
    std::uint64_t rows = 0;
    for (std::size_t i = 0; i < spans_.size(); ++i) {
      if (i < ended_[column] || pass_.rules_out(pass_.number_of(*spans_[i].tile), column, threshold))
        rows += spans_[i].live;
    }
    return rows;
  }

 private:
  // Most columns meet their best tile after those of others, and would keep rows of each until then.
  void look_ahead(Worker& worker) {
    if (ended_.size() < kLookAheadColumns || !pass_.bounds_) return;
    for (std::size_t column = looked_at_++; column < ended_.size(); column = looked_at_++) {
      // A deadline may leave no time for what the threshold was taken from.
      if (pass_.facts_.columns[column].search->deadline) continue;
      worker.look_ahead(pass_.facts_.table.tiles()[pass_.bounds_->promising(column, 1).front()], column);
    }
  }

  // Takes spans [first, the number returned), none when all is done, and says for which columns.
  std::size_t take(std::vector<bool>& live, std::size_t& first) {
    const std::lock_guard lock(mutex_);
    first = taken_;
    if (taken_ == spans_.size() || !any_goes_on(live)) return first;
    const std::size_t wanted = pass_.rows_of_a_turn();
    for (std::size_t rows = 0; taken_ < spans_.size() && rows < wanted; ++taken_) rows += spans_[taken_].rows;
    return taken_;
  }

  // Ends the searches whose time is over. Columns of one search are neighbours: the clock is read once for all of them.
  bool any_goes_on(std::vector<bool>& live) {
    bool any = false, goes_on = false;
    const Search* search = nullptr;
    for (std::size_t column = 0; column < ended_.size(); ++column) {
      if (pass_.facts_.columns[column].search != search) {
        search = pass_.facts_.columns[column].search;
        goes_on = ended_[column] == spans_.size() && !search->is_cancelled() && (taken_ == 0 || !search->expired());
      }
      if (!goes_on) ended_[column] = std::min(ended_[column], taken_);
      live[column] = goes_on;
      any = any || goes_on;
    }
    return any;
  }

  bool choose(const Span& span, const std::vector<bool>& live, std::vector<bool>& active) const {
    bool any = false;
    const std::size_t tile = pass_.number_of(*span.tile);
    for (std::size_t column = 0; column < live.size(); ++column) {
      active[column] = live[column] && !pass_.rules_out(tile, column, pass_.facts_.thresholds.of(column));
      any = any || active[column];
    }
    return any;
  }

  const Pass& pass_;
  const std::vector<Span> spans_;
  const std::size_t threads_;
  std::mutex mutex_;
  std::size_t taken_ = 0;
  std::atomic<std::size_t> looked_at_ = 0;  // columns that have been looked ahead for, or are
  std::vector<std::size_t> ended_;          // by column: the first span that it does not get
};

Pass::Pass(const Table& table, const kernels::Kernels& kernels, std::vector<Column> columns)
    : facts_(facts(table, kernels, std::move(columns))) {}

bool Pass::sums_rows(const Table& table, const Search& search) {
  if (search.log_probs != LogProbs::estimate) return search.wants_log_probs();
  if (search.mode == Mode::sample) return true;  // noise has no bound: every row is scored
  if (table.layout().stored_rows <= Panel::kSummedRows) return true;
  // Without bounds of tiles, nothing bounds the scores of rows that a filter refuses.
  return !table.layout().tile_bounds && search.filter != nullptr;
}

bool Pass::rules_out(std::size_t tile, std::size_t column, float threshold) const {
  if (!bounds_) return false;
  const float upper = bounds_->upper(tile, column);
  if (!(upper < threshold)) return false;
  return !facts_.wants_denominator || facts_.link.logit(upper) < facts_.negligible.of(column);
}

std::size_t Pass::rows_of_a_turn() const {
  const std::size_t dim = facts_.table.layout().dim;
  const std::size_t by_bytes = kTurnBytes / code_bytes(facts_.table.layout().codec, dim);
  const std::size_t by_products = kTurnProducts / (dim * facts_.columns.size());
  const std::size_t blocks = std::max<std::size_t>(1, std::min(by_bytes, by_products) / kernels::kBlockRows);
  return blocks * kernels::kBlockRows;
}

std::vector<Span> Pass::cut_spans(Pool& pool) {
  std::vector<std::size_t> order(facts_.table.tiles().size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Noise has no bound, and makes any tile as good to begin with as another.
  if (facts_.table.layout().tile_bounds && !facts_.samples) {
    bounds_.emplace(facts_.table, facts_.kernels, facts_.columns, pool);
    order = bounds_->order(pool);
  }
  const std::size_t step = rows_of_a_turn();
  const Tombstones& tombstones = facts_.table.tombstones();
  std::vector<Span> spans;
  for (const std::size_t number : order) {
    const Tile& tile = facts_.table.tiles()[number];
    for (std::size_t first = 0; first < tile.rows; first += step) {
      const std::size_t rows = std::min(step, tile.rows - first);
      const std::uint64_t deleted = tile.has_deleted ? tombstones.count(tile.first_row + first, rows) : 0;
      if (deleted < rows) spans.push_back({&tile, first, rows, rows - static_cast<std::size_t>(deleted)});
    }
  }
  return spans;
}

std::vector<ItemAnswer> Pass::run(Pool& pool, const std::function<const Panel&()>& panel) {
  std::vector<Span> spans = cut_spans(pool);
  const std::size_t threads = std::min(pool.threads(), spans.size());
  Turns turns(*this, std::move(spans), threads);
  std::vector<std::unique_ptr<Worker>> workers(threads);
  pool.run(threads, [&](std::size_t number) {
    // Made by the thread that uses it, so that its buffers lie in that thread's caches.
    workers[number] = std::make_unique<Worker>(facts_);
    turns.work(*workers[number]);
  });
  std::vector<ItemAnswer> answers;
  for (std::size_t column = 0; column < facts_.columns.size(); ++column) {
    answers.push_back(merge(column, workers, turns));
  }
  if (facts_.columns.front().search->log_probs == LogProbs::estimate && !facts_.wants_denominator) {
    Estimator(facts_, panel(), bounds_ ? &*bounds_ : nullptr).estimate(answers, pool);
  }
  return answers;
}

ItemAnswer Pass::merge(std::size_t column, const std::vector<std::unique_ptr<Worker>>& workers,
                       const Turns& turns) const {
  std::vector<Candidate> users;
  LogSumExp denominator;
  for (const std::unique_ptr<Worker>& worker : workers) {
    const std::vector<Candidate>& found = worker->best(column).candidates();
    users.insert(users.end(), found.begin(), found.end());
    denominator.add(worker->denominator(column).m, worker->denominator(column).l);
  }
  const std::size_t k = facts_.columns[column].search->k;
  ItemAnswer answer = ranked(std::move(users), k);
  const bool full = answer.users.size() == k;
  answer.rows_scored =
      turns.rows_decided(column, full ? answer.users.back().key : -std::numeric_limits<float>::infinity());
  answer.complete = answer.rows_scored == facts_.table.layout().rows;
  if (facts_.wants_denominator) {
    answer.logsumexp = at_least_of(answer.users, denominator, facts_.link);
    answer.log_probs_exact = answer.complete && facts_.columns[column].search->log_probs != LogProbs::certified;
    if (answer.complete) answer.tell_error(answer.log_probs_exact ? 0.0 : kNegligibleCertified, true);
  }
  return answer;
}

}  // namespace fllm
