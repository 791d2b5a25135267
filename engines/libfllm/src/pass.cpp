#include "pass.hpp"

#include <algorithm>
#include <limits>
#include <mutex>

#include "worker.hpp"

namespace fllm {

namespace {

constexpr std::size_t kSpanBytes = 512 << 10;           // of codes: long enough to amortise, short enough for a deadline
constexpr std::size_t kSpanProducts = std::size_t{1} << 26;  // multiply-adds, about half a millisecond of a core

constexpr std::size_t kSketchColumns = 8;  // more items share a full pass at less cost than each its sketch

bool wants_denominator(const std::vector<Column>& columns) {
  return std::any_of(columns.begin(), columns.end(),
                     [](const Column& column) { return column.search->log_probs != LogProbs::none; });
}

bool uses_sketch(const Table& table, const std::vector<Column>& columns) {
  const Search& search = *columns.front().search;
  return !table.sketches().empty() && columns.size() <= kSketchColumns && search.mode == Mode::topk &&
         search.log_probs != LogProbs::exact;
}

double log_sum_exp(const std::vector<Candidate>& users) {
  LogSumExp sum;
  for (const Candidate& user : users) sum.add(user.score, 1.0);
  return sum.value();
}

}  // namespace

// Hands out spans, and knows which columns are still wanted. A search whose deadline has passed gets no further span,
// but the first is scored for everybody.
class Pass::Turns {
 public:
  Turns(const Pass& pass, std::vector<Span> spans)
      : pass_(pass), spans_(std::move(spans)), rows_scored_(pass.columns_.size(), 0) {}

  // The next span and the columns that want it, or null when there is none.
  const Span* next(std::vector<bool>& active) {
    const std::lock_guard lock(mutex_);
    if (taken_ == spans_.size()) return nullptr;
    bool any = false;
    const Search* search = nullptr;
    bool wanted = false;
    for (std::size_t column = 0; column < pass_.columns_.size(); ++column) {
      // Columns of one search are neighbours: the clock is read once for all of them.
      if (pass_.columns_[column].search != search) {
        search = pass_.columns_[column].search;
        wanted = !ended_.contains(search) && !search->is_cancelled() && (taken_ == 0 || !search->expired());
        if (!wanted) ended_.insert(search);
      }
      active[column] = wanted;
      any = any || wanted;
      if (wanted) rows_scored_[column] += spans_[taken_].rows;
    }
    return any ? &spans_[taken_++] : nullptr;
  }

  std::uint64_t rows_scored(std::size_t column) const { return rows_scored_[column]; }

 private:
  struct Ended {
    std::vector<const Search*> searches;
    bool contains(const Search* search) const {
      return std::find(searches.begin(), searches.end(), search) != searches.end();
    }
    void insert(const Search* search) {
      if (!contains(search)) searches.push_back(search);
    }
  };

  const Pass& pass_;
  const std::vector<Span> spans_;
  std::mutex mutex_;
  std::size_t taken_ = 0;
  Ended ended_;
  std::vector<std::uint64_t> rows_scored_;
};

Pass::Pass(const Table& table, const kernels::Kernels& kernels, std::vector<Column> columns)
    : table_(table),
      kernels_(kernels),
      columns_(std::move(columns)),
      wants_denominator_(fllm::wants_denominator(columns_)),
      samples_(columns_.front().search->mode == Mode::sample),
      uses_sketch_(fllm::uses_sketch(table, columns_)),
      queries_(table, kernels, columns_, !wants_denominator_),
      shared_(columns_.size()) {
  for (std::atomic<float>& threshold : shared_) threshold.store(-std::numeric_limits<float>::infinity());
}

void Pass::share_threshold(std::size_t column, float threshold) {
  float known = shared_[column].load(std::memory_order_relaxed);
  while (threshold > known && !shared_[column].compare_exchange_weak(known, threshold, std::memory_order_relaxed)) {
  }
}

std::vector<Span> Pass::cut_spans() const {
  const std::size_t dim = table_.layout().dim;
  const std::size_t by_bytes = kSpanBytes / code_bytes(table_.layout().codec, dim);
  const std::size_t by_products = kSpanProducts / (dim * columns_.size());
  const std::size_t blocks = std::max<std::size_t>(1, std::min(by_bytes, by_products) / kernels::kBlockRows);
  const std::size_t step = blocks * kernels::kBlockRows;
  std::vector<Span> spans;
  for (const Tile& tile : table_.tiles()) {
    for (std::size_t first = 0; first < tile.rows; first += step) {
      spans.push_back({&tile, first, std::min(step, tile.rows - first)});
    }
  }
  return spans;
}

std::vector<ItemAnswer> Pass::run(Pool& pool) {
  std::vector<Span> spans = cut_spans();
  const std::size_t threads = std::min(pool.threads(), spans.size());
  Turns turns(*this, std::move(spans));
  std::vector<std::unique_ptr<Worker>> workers(threads);
  pool.run(threads, [&](std::size_t number) {
    // Made by the thread that uses it, so that its buffers lie in that thread's caches.
    workers[number] = std::make_unique<Worker>(*this);
    std::vector<bool> active(columns_.size());
    while (const Span* span = turns.next(active)) {
      if (span->first == 0) prefetch_after(*span->tile, threads);
      workers[number]->scan(*span, active);
    }
  });
  std::vector<ItemAnswer> answers;
  for (std::size_t column = 0; column < columns_.size(); ++column) {
    answers.push_back(merge(column, workers, turns.rows_scored(column)));
  }
  return answers;
}

void Pass::prefetch_after(const Tile& tile, std::size_t threads) const {
  const auto next = static_cast<std::size_t>(&tile - table_.tiles().data()) + threads;
  if (next < table_.tiles().size()) table_.prefetch(table_.tiles()[next]);
}

ItemAnswer Pass::merge(std::size_t column, const std::vector<std::unique_ptr<Worker>>& workers,
                       std::uint64_t rows_scored) const {
  ItemAnswer answer;
  LogSumExp denominator;
  for (const std::unique_ptr<Worker>& worker : workers) {
    const std::vector<Candidate>& found = worker->best(column).candidates();
    answer.users.insert(answer.users.end(), found.begin(), found.end());
    denominator.add(worker->denominator(column).m, worker->denominator(column).l);
  }
  const std::size_t k = std::min(columns_[column].search->k, answer.users.size());
  const auto end = answer.users.begin() + static_cast<std::ptrdiff_t>(k);
  std::nth_element(answer.users.begin(), end, answer.users.end(), ranks_before);
  answer.users.resize(k);
  std::sort(answer.users.begin(), answer.users.end(), ranks_before);
  answer.rows_scored = rows_scored;
  answer.complete = rows_scored == table_.layout().rows;
  if (wants_denominator_) {
    // The users found are scored exactly, the others in float32: of a distribution that these users make up almost
    // alone, their own sum is the better part of the truth, and no probability may exceed 1.
    answer.logsumexp = std::max(denominator.value(), log_sum_exp(answer.users));
    answer.log_probs_exact = answer.complete && !uses_sketch_;
  }
  return answer;
}

}  // namespace fllm
