// The C interface: checks what comes in, turns exceptions into statuses, and lays the answer out.
#include "fllm/fllm.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <span>
#include <string>

#include "api/boundary.hpp"
#include "api/handle.hpp"
#include "machine/cpu.hpp"
#include "search/filter.hpp"
#include "search/gumbel.hpp"
#include "search/refined.hpp"
#include "status.hpp"

struct fllm_table : fllm::Handle {
  using Handle::Handle;
};

struct fllm_filter {
  std::shared_ptr<fllm::OpenTable> open;  // keeps the table that the rows are of
  fllm::UserFilter rows;
};

namespace {

using fllm::Error;
using fllm::guarded;
using fllm::read_options;
using fllm::require;
using fllm::sentence;
using fllm::Status;

void check_vectors(const float* z, std::size_t items, std::size_t dim) {
  require(z != nullptr && items > 0, "there are no item vectors", "at least one");
  for (std::size_t i = 0; i < items * dim; ++i) {
    if (std::isfinite(z[i])) continue;
    throw Error(Status::usage, sentence("item vector " + std::to_string(i / dim) + " holds " + std::to_string(z[i]) +
                                            " at " + std::to_string(i % dim) + ", which is not finite",
                                        "finite numbers", "Check the encoder or the code that computed the vector"));
  }
}

// Candidates per user wanted.
std::size_t refinement(std::int32_t given, const fllm::Layout& layout) {
  if (given < 0) return layout.refinement ? FLLM_REFINE_DEFAULT : 0;
  if (given > 0 && !layout.refinement) {
    throw Error(Status::usage, sentence("refine is " + std::to_string(given) + ", and the table has no refinement rows",
                                        "0, or a table with refinement rows"));
  }
  return static_cast<std::size_t>(given);
}

fllm::Search wanted(const float* z, std::size_t items, const fllm_search_options& options, const fllm::OpenTable& open,
                    fllm::Clock::time_point began) {
  const std::uint64_t rows = open.table().layout().rows;
  if (options.k < 1 || options.k > rows) {
    throw Error(Status::usage, sentence("k is " + std::to_string(options.k),
                                        "an integer from 1 to " + std::to_string(rows) + ", the users of this table"));
  }
  require(options.mode == FLLM_TOPK || options.mode == FLLM_SAMPLE, "the mode is invalid", "FLLM_TOPK or FLLM_SAMPLE");
  require(options.log_probs >= FLLM_LOG_PROBS_EXACT && options.log_probs <= FLLM_LOG_PROBS_CERTIFIED,
          "log_probs is invalid", "a value of fllm_log_probs");
  require(
      options.exact != 0 || options.log_probs == FLLM_LOG_PROBS_ESTIMATE || options.log_probs == FLLM_LOG_PROBS_NONE,
      "exact is 0 and log_probs is FLLM_LOG_PROBS_EXACT or FLLM_LOG_PROBS_CERTIFIED",
      "FLLM_LOG_PROBS_ESTIMATE or FLLM_LOG_PROBS_NONE");
  require(!std::isnan(options.budget_ms), "budget_ms is NaN", "a number of milliseconds");
  require(options.filter == nullptr || options.filter->rows.table() == &open.table(),
          "the filter was made for another table, or before the table was opened again", "a filter of this table");
  fllm::Search search;
  search.z = z;
  search.items = items;
  search.k = options.k;
  search.mode = options.mode == FLLM_SAMPLE ? fllm::Mode::sample : fllm::Mode::topk;
  search.exact = options.exact != 0;
  search.refine = refinement(options.refine, open.table().layout());
  search.log_probs = static_cast<fllm::LogProbs>(options.log_probs);
  search.seeds = options.seeds;
  search.filter = options.filter == nullptr ? nullptr : &options.filter->rows;
  search.cancelled = options.cancel == nullptr ? nullptr : &options.cancel->requested;
  if (options.budget_ms > 0) {
    const std::chrono::duration<double, std::milli> budget(std::min(options.budget_ms, 1e12));
    search.deadline = began + std::chrono::duration_cast<fllm::Clock::duration>(budget);
  }
  return search;
}

// Finite item vectors and rows may have scores beyond float32; rows that are not finite end in such scores, too, where
// an engine does not find them first.
void check_finite(const std::vector<fllm::ItemAnswer>& answers, bool wants_denominator) {
  for (std::size_t item = 0; item < answers.size(); ++item) {
    const std::string whose = "item " + std::to_string(item) + ": ";
    const std::string fix = "Scale the item vector, or write the table again if rows of it are not finite";
    const auto check = [&](const fllm::Candidate& user, float score) {
      if (std::isfinite(score)) return;
      throw Error(Status::bundle,
                  sentence(whose + "the score of user " + std::to_string(user.id) + " is " + std::to_string(score),
                           "a finite score", fix));
    };
    const fllm::ItemAnswer& found = answers[item];
    for (const fllm::Candidate& user : found.users) check(user, user.score);
    for (std::size_t at = 0; at < found.refined_scores.size(); ++at) check(found.users[at], found.refined_scores[at]);
    const double logsumexp = answers[item].logsumexp;
    if (wants_denominator && answers[item].rows_scored > 0 && !std::isfinite(logsumexp)) {
      throw Error(Status::bundle, sentence(whose + "the logsumexp of the table is " + std::to_string(logsumexp),
                                           "a finite number", fix));
    }
  }
}

void write_users(const fllm::ItemAnswer& found, std::size_t item, std::size_t k, const fllm::Link& link,
                 const fllm_answer& answer) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  for (std::size_t rank = 0; rank < k; ++rank) {
    const bool known = rank < found.users.size();
    const fllm::Candidate user = known ? found.users[rank] : fllm::Candidate{kNone, kNone, -1};
    const std::size_t at = item * k + rank;
    if (answer.user_ids != nullptr) answer.user_ids[at] = user.id;
    if (answer.keys != nullptr) answer.keys[at] = user.key;
    if (answer.scores != nullptr) answer.scores[at] = user.score;
    if (answer.refined_scores != nullptr) answer.refined_scores[at] = known ? found.refined_scores[rank] : kNone;
    if (answer.log_probs != nullptr)
      answer.log_probs[at] = static_cast<float>(link.logit(user.score) - found.logsumexp);
  }
}

void write(const std::vector<fllm::ItemAnswer>& answers, std::size_t k, const fllm::OpenTable& open, fllm_answer& out) {
  for (std::size_t item = 0; item < answers.size(); ++item) {
    const fllm::ItemAnswer& found = answers[item];
    write_users(found, item, k, open.table().layout().link, out);
    if (out.logsumexp != nullptr) out.logsumexp[item] = found.logsumexp;
    if (out.rows_scored != nullptr) out.rows_scored[item] = found.rows_scored;
    if (out.complete != nullptr) out.complete[item] = found.complete ? 1 : 0;
    if (out.log_probs_exact != nullptr) out.log_probs_exact[item] = found.log_probs_exact ? 1 : 0;
    if (out.log_prob_error != nullptr) out.log_prob_error[item] = found.log_prob_error;
    if (out.log_probs_certified != nullptr) out.log_probs_certified[item] = found.log_probs_certified ? 1 : 0;
  }
  out.generation = open.table().layout().generation;
  out.rows = open.table().layout().rows;
}

}  // namespace

uint32_t fllm_abi_version(void) { return FLLM_ABI_VERSION; }

const char* fllm_version(void) { return FLLM_VERSION; }

size_t fllm_cpu_levels(char* buffer, size_t capacity) {
  std::string levels;
  for (const std::string& level : fllm::cpu_levels()) levels += (levels.empty() ? "" : ",") + level;
  if (buffer != nullptr && capacity > 0) std::snprintf(buffer, capacity, "%s", levels.c_str());
  return levels.size();
}

size_t fllm_engines(fllm_engine_info* engines, size_t capacity) {
  const std::span<const fllm::EngineKind> kinds = fllm::engine_kinds();
  for (std::size_t i = 0; i < std::min(capacity, kinds.size()); ++i) {
    std::string codecs;
    for (const fllm::Codec codec : kinds[i].codecs) {
      codecs += (codecs.empty() ? "" : ",") + std::string(fllm::codec_name(codec));
    }
    engines[i] = fllm_engine_info{};
    std::snprintf(engines[i].name, sizeof engines[i].name, "%s", kinds[i].name);
    std::snprintf(engines[i].codecs, sizeof engines[i].codecs, "%s", codecs.c_str());
    engines[i].takes_plan = kinds[i].takes_plan ? 1 : 0;
  }
  return kinds.size();
}

fllm_status fllm_gumbel(uint64_t seed, const int64_t* ids, size_t n, double* noise, fllm_error* error) {
  return guarded(error, [&] {
    require(n == 0 || (ids != nullptr && noise != nullptr), "ids or noise is NULL", "arrays");
    fllm::gumbel(seed, ids, n, noise);
  });
}

fllm_status fllm_table_open(const char* directory, const fllm_table_options* options, fllm_table** table,
                            fllm_error* error) {
  return guarded(error, [&] {
    require(directory != nullptr && table != nullptr, "directory or table is NULL",
            "a path and a pointer to the handle");
    const fllm_table_options given =
        read_options(options, fllm_table_options FLLM_TABLE_OPTIONS_INIT, "fllm_table_options");
    fllm::HandleOptions wanted;
    if (given.engine != nullptr) wanted.engine = given.engine;
    if (given.isa != nullptr) wanted.isa = given.isa;
    wanted.given = {given.threads, given.pin_threads != 0, nullptr, given.gpus, given.gpu_bytes, {}};
    if (given.plan != nullptr) wanted.given.plan = given.plan;
    require(given.parts == 0 ? given.part == 0 : given.part < given.parts, "the part is invalid",
            "a number below `parts`");
    wanted.residency = {given.resident != 0, given.part, given.parts};
    wanted.batch_window = std::chrono::microseconds(given.batch_window_us);
    *table = new fllm_table(directory, std::move(wanted));
  });
}

fllm_status fllm_table_reopen(fllm_table* table, const char* directory, fllm_error* error) {
  return guarded(error, [&] {
    require(table != nullptr, "the table is NULL", "an open table");
    table->reopen(directory == nullptr ? "" : directory);
  });
}

fllm_table* fllm_table_retain(fllm_table* table) {
  table->retain();
  return table;
}

void fllm_table_release(fllm_table* table) {
  if (table != nullptr && table->release()) delete table;
}

fllm_status fllm_table_describe(const fllm_table* table, fllm_table_info* info, fllm_error* error) {
  return guarded(error, [&] {
    require(table != nullptr && info != nullptr, "table or info is NULL",
            "an open table and a pointer to an fllm_table_info");
    fllm_table_info facts = read_options(info, fllm_table_info FLLM_TABLE_INFO_INIT, "fllm_table_info");
    const std::shared_ptr<fllm::OpenTable> open = table->current();
    const fllm::Layout& layout = open->table().layout();
    const std::size_t size = facts.size;
    facts = fllm_table_info FLLM_TABLE_INFO_INIT;
    facts.size = size;
    facts.rows = layout.rows;
    facts.dim = layout.item_dim();
    facts.generation = layout.generation;
    for (const fllm::ShardEntry& shard : layout.shards) facts.bytes += shard.bytes;
    if (layout.refinement) {
      for (const fllm::ShardEntry& shard : layout.refinement->shards) facts.bytes += shard.bytes;
      std::snprintf(facts.refinement, sizeof facts.refinement, "%s", fllm::codec_name(layout.refinement->codec));
    }
    facts.bias = layout.bias ? 1 : 0;
    facts.sketch = layout.sketch_dims > 0 ? 1 : 0;
    facts.threads = static_cast<uint32_t>(table->threads());
    std::snprintf(facts.codec, sizeof facts.codec, "%s", fllm::codec_name(layout.codec));
    std::snprintf(facts.engine, sizeof facts.engine, "%s", table->engine());
    std::snprintf(facts.isa, sizeof facts.isa, "%s", open->engine().level().c_str());
    facts.deleted_rows = layout.stored_rows - layout.rows;
    facts.recovered = layout.recovered ? 1 : 0;
    facts.link_exponent = layout.link.exponent;
    std::memcpy(info, &facts, size);
  });
}

fllm_status fllm_filter_create(const fllm_table* table, const int64_t* user_ids, size_t n, fllm_filter_kind kind,
                               fllm_filter** filter, fllm_error* error) {
  return guarded(error, [&] {
    require(table != nullptr && filter != nullptr, "table or filter is NULL",
            "an open table and a pointer to the filter");
    require(n == 0 || user_ids != nullptr, "user_ids is NULL", "an array of n ids");
    require(kind == FLLM_ALLOW || kind == FLLM_DENY, "the kind of filter is invalid", "FLLM_ALLOW or FLLM_DENY");
    std::shared_ptr<fllm::OpenTable> open = table->current();
    fllm::UserFilter rows(open->table(), user_ids, n, kind == FLLM_DENY);
    *filter = new fllm_filter{std::move(open), std::move(rows)};
  });
}

void fllm_filter_release(fllm_filter* filter) { delete filter; }

fllm_status fllm_table_search(const fllm_table* table, const float* z, size_t items, const fllm_search_options* options,
                              fllm_answer* answer, fllm_error* error) {
  const fllm::Clock::time_point began = fllm::Clock::now();
  return guarded(error, [&] {
    require(table != nullptr && answer != nullptr, "table or answer is NULL",
            "an open table and a pointer to an fllm_answer");
    const fllm_search_options given =
        read_options(options, fllm_search_options FLLM_SEARCH_OPTIONS_INIT, "fllm_search_options");
    fllm_answer out = read_options(answer, fllm_answer FLLM_ANSWER_INIT, "fllm_answer");
    const std::shared_ptr<fllm::OpenTable> open = table->current();
    check_vectors(z, items, open->table().layout().item_dim());
    fllm::Search search = wanted(z, items, given, *open, began);
    search.refined_scores = out.refined_scores != nullptr;
    require(!search.refined_scores || open->table().refinement() != nullptr,
            "refined_scores is not NULL, and the table has no refinement rows",
            "NULL, or a table with refinement rows");
    const std::vector<fllm::ItemAnswer> found = fllm::search_refined(*open, table->kernels(), search);
    check_finite(found, search.wants_log_probs());
    write(found, search.k, *open, out);
    std::memcpy(answer, &out, out.size);
  });
}
