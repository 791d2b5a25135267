// The C interface for C++20: handles that release themselves, spans, and one exception class that holds the status.
// Header only; link with libfllm. It offers nothing beyond fllm.h, which documents every field.
#ifndef FLLM_FLLM_HPP
#define FLLM_FLLM_HPP

#include <fllm/fllm.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace fllm {
inline namespace v1 {

class Error : public std::runtime_error {
 public:
  Error(fllm_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  fllm_status status() const noexcept { return status_; }

 private:
  fllm_status status_;
};

inline void check(fllm_status status, const fllm_error& error) {
  if (status != FLLM_OK) throw Error(status, error.message);
}

// The engines of the library, the default one first.
inline std::vector<fllm_engine_info> engines() {
  std::vector<fllm_engine_info> found(fllm_engines(nullptr, 0));
  fllm_engines(found.data(), found.size());
  return found;
}

struct TableOptions {
  unsigned threads = 0;  // 0: FLLM_NUM_THREADS, or one per CPU
  bool pin_threads = false;
  bool resident = false;
  std::chrono::microseconds batch_window{0};
  std::string isa;              // empty: FLLM_ISA, or the best available
  std::string engine;           // the name of one of engines(); empty: "native"
  unsigned gpus = 0;            // number of GPUs that share the table; 0: one
  std::uint64_t gpu_bytes = 0;  // memory limit per GPU, in bytes; 0: what is free
  std::string plan;             // path of the bundle's head plan, for "tensorrt" only
  unsigned part = 0;            // number of the part that is opened
  unsigned parts = 0;           // contiguous parts of whole shards; 0: the whole table
};

class Filter {
 public:
  explicit Filter(fllm_filter* filter) : filter_(filter) {}
  const fllm_filter* get() const noexcept { return filter_.get(); }

 private:
  struct Release {
    void operator()(fllm_filter* filter) const noexcept { fllm_filter_release(filter); }
  };
  std::unique_ptr<fllm_filter, Release> filter_;
};

struct SearchOptions {
  std::size_t k = 100;
  fllm_mode mode = FLLM_TOPK;
  bool exact = true;
  fllm_log_probs log_probs = FLLM_LOG_PROBS_EXACT;
  std::optional<std::chrono::duration<double, std::milli>> budget;
  std::span<const std::uint64_t> seeds;  // one per item, or empty
  const Filter* filter = nullptr;
  const fllm_cancel* cancel = nullptr;
  std::optional<std::uint32_t> refine;  // empty: FLLM_REFINE_DEFAULT if the table has refinement rows, otherwise 0
};

// The arrays of fllm_answer; those of shape [items, k] are row-major.
struct Answer {
  std::size_t items = 0, k = 0;
  std::vector<std::int64_t> user_ids;
  std::vector<float> keys, scores, log_probs;
  std::vector<double> logsumexp;
  std::vector<std::uint64_t> rows_scored;
  std::vector<std::uint8_t> complete, log_probs_exact;
  std::int64_t generation = 0;
  std::uint64_t rows = 0;
  std::vector<float> log_prob_error;
  std::vector<std::uint8_t> log_probs_certified;
};

// A table handle. Copies own the same table; each may be used from any thread.
class Table {
 public:
  explicit Table(const std::string& directory, const TableOptions& options = {}) {
    fllm_table_options c = FLLM_TABLE_OPTIONS_INIT;
    c.threads = options.threads;
    c.pin_threads = options.pin_threads;
    c.resident = options.resident;
    c.batch_window_us = static_cast<std::uint32_t>(options.batch_window.count());
    c.isa = options.isa.empty() ? nullptr : options.isa.c_str();
    c.engine = options.engine.empty() ? nullptr : options.engine.c_str();
    c.gpus = options.gpus;
    c.gpu_bytes = options.gpu_bytes;
    c.plan = options.plan.empty() ? nullptr : options.plan.c_str();
    c.part = options.part;
    c.parts = options.parts;
    fllm_error error;
    check(fllm_table_open(directory.c_str(), &c, &table_, &error), error);
  }
  Table(const Table& other) noexcept : table_(fllm_table_retain(other.table_)) {}
  Table(Table&& other) noexcept : table_(std::exchange(other.table_, nullptr)) {}
  Table& operator=(Table other) noexcept {
    std::swap(table_, other.table_);
    return *this;
  }
  ~Table() { fllm_table_release(table_); }

  // Replaces the table by the one in `directory` (empty: the same directory as before), for all owners.
  void reopen(const std::string& directory = {}) {
    fllm_error error;
    check(fllm_table_reopen(table_, directory.empty() ? nullptr : directory.c_str(), &error), error);
  }

  fllm_table_info describe() const {
    fllm_table_info info = FLLM_TABLE_INFO_INIT;
    fllm_error error;
    check(fllm_table_describe(table_, &info, &error), error);
    return info;
  }

  Filter filter(std::span<const std::int64_t> user_ids, fllm_filter_kind kind) const {
    fllm_filter* filter = nullptr;
    fllm_error error;
    check(fllm_filter_create(table_, user_ids.data(), user_ids.size(), kind, &filter, &error), error);
    return Filter(filter);
  }

  // z: float32 [items, dim].
  Answer search(std::span<const float> z, std::size_t items, const SearchOptions& options = {}) const {
    Answer answer = room(items, options.k);
    fllm_answer out = FLLM_ANSWER_INIT;
    out.user_ids = answer.user_ids.data();
    out.keys = answer.keys.data();
    out.scores = answer.scores.data();
    out.log_probs = answer.log_probs.data();
    out.logsumexp = answer.logsumexp.data();
    out.rows_scored = answer.rows_scored.data();
    out.complete = answer.complete.data();
    out.log_probs_exact = answer.log_probs_exact.data();
    out.log_prob_error = answer.log_prob_error.data();
    out.log_probs_certified = answer.log_probs_certified.data();
    search(z, items, options, out);
    answer.generation = out.generation;
    answer.rows = out.rows;
    return answer;
  }

  // The same from a pointer to items * dim values.
  Answer search(const float* z, std::size_t items, const SearchOptions& options = {}) const {
    return search(std::span(z, items * describe().dim), items, options);
  }

  // The same into the caller's arrays.
  void search(std::span<const float> z, std::size_t items, const SearchOptions& options, fllm_answer& out) const {
    if (z.size() != items * describe().dim)
      throw Error(FLLM_USAGE, "the item vectors (z) do not hold items * dim values.");
    if (!options.seeds.empty() && options.seeds.size() != items) {
      throw Error(FLLM_USAGE, "seeds does not hold one seed per item.");
    }
    fllm_search_options c = FLLM_SEARCH_OPTIONS_INIT;
    c.k = options.k;
    c.mode = options.mode;
    c.exact = options.exact;
    c.log_probs = options.log_probs;
    c.budget_ms = options.budget ? options.budget->count() : 0.0;
    c.seeds = options.seeds.empty() ? nullptr : options.seeds.data();
    c.filter = options.filter == nullptr ? nullptr : options.filter->get();
    c.cancel = options.cancel;
    c.refine = options.refine ? static_cast<std::int32_t>(*options.refine) : -1;
    fllm_error error;
    check(fllm_table_search(table_, z.data(), items, &c, &out, &error), error);
  }

  fllm_table* get() const noexcept { return table_; }

 private:
  Answer room(std::size_t items, std::size_t k) const {
    // The library reports a K that is larger than the table; nothing is allocated for it here.
    const std::size_t users = items * (k > describe().rows ? 0 : k);
    Answer answer{items,
                  k,
                  std::vector<std::int64_t>(users),
                  std::vector<float>(users),
                  std::vector<float>(users),
                  std::vector<float>(users),
                  std::vector<double>(items),
                  std::vector<std::uint64_t>(items),
                  std::vector<std::uint8_t>(items),
                  std::vector<std::uint8_t>(items),
                  0,
                  0,
                  std::vector<float>(items),
                  std::vector<std::uint8_t>(items)};
    return answer;
  }

  fllm_table* table_ = nullptr;
};

// How a change is made; see fllm.h for what is promised.
struct ChangeOptions {
  std::int64_t if_generation = 0;  // refuse the change unless the table is of this generation; 0: of any
  std::span<const float> bias;     // one per row, or empty where the table's rows have none
};

// Removes users from the table in `directory`.
inline fllm_change delete_users(const std::string& directory, std::span<const std::int64_t> user_ids,
                                const ChangeOptions& options = {}) {
  const fllm_change_options c{sizeof(fllm_change_options), options.if_generation};
  fllm_change change = FLLM_CHANGE_INIT;
  fllm_error error;
  check(fllm_users_delete(directory.c_str(), user_ids.data(), user_ids.size(), &c, &change, &error), error);
  return change;
}

using ChangeRows = decltype(&fllm_users_append);

// rows: float32 [users, dim].
inline fllm_change change_rows(ChangeRows function, const std::string& directory, std::span<const float> rows,
                               std::span<const std::int64_t> user_ids, const ChangeOptions& options) {
  const std::size_t n = user_ids.size(), dim = n == 0 ? 0 : rows.size() / n;
  if (rows.size() != n * dim) throw Error(FLLM_USAGE, "the rows do not hold dim values per user.");
  if (!options.bias.empty() && options.bias.size() != n)
    throw Error(FLLM_USAGE, "bias does not hold one value per row.");
  const fllm_change_options c{sizeof(fllm_change_options), options.if_generation};
  const float* const bias = options.bias.empty() ? nullptr : options.bias.data();
  fllm_change change = FLLM_CHANGE_INIT;
  fllm_error error;
  check(function(directory.c_str(), rows.data(), n, dim, bias, user_ids.data(), &c, &change, &error), error);
  return change;
}

// Adds users to the table in `directory`; rows: float32 [users, dim].
inline fllm_change append_users(const std::string& directory, std::span<const float> rows,
                                std::span<const std::int64_t> user_ids, const ChangeOptions& options = {}) {
  return change_rows(&fllm_users_append, directory, rows, user_ids, options);
}

// Replaces the rows of users of the table in `directory`; rows: float32 [users, dim].
inline fllm_change update_users(const std::string& directory, std::span<const float> rows,
                                std::span<const std::int64_t> user_ids, const ChangeOptions& options = {}) {
  return change_rows(&fllm_users_update, directory, rows, user_ids, options);
}

}  // namespace v1
}  // namespace fllm

#endif  // FLLM_FLLM_HPP
