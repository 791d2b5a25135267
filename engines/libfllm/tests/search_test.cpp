// Searches through the C++ header: against a plain sort, by many threads at once, while the table is opened again,
// cancelled, cut short and filtered. Run under the thread sanitizer too.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <fllm/fllm.hpp>
#include <thread>

#include "check.hpp"
#include "shard_writer.hpp"

namespace {

constexpr std::uint64_t kRows = 3000, kDim = 20;
constexpr std::size_t kItems = 5, kUsers = 40;

std::vector<float> item_vectors() {
  std::vector<float> z(kItems * kDim);
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = static_cast<float>(std::sin(static_cast<double>(i) * 1.7) * 3);
  return z;
}

// The users of one item by (score descending, id ascending), computed in double from the definition.
std::vector<std::int64_t> ranked(const float* z) {
  float peak = 0;
  for (std::size_t j = 0; j < kDim; ++j) peak = std::max(peak, std::abs(z[j]));
  const double scale = static_cast<double>(peak) / 8127;
  std::vector<std::pair<float, std::int64_t>> scored;
  for (std::uint64_t r = 0; r < kRows; ++r) {
    double sum = 0;
    for (std::uint64_t j = 0; j < kDim; ++j) {
      const int code = static_cast<int>((r * 31 + j * 7) % 255) - 127;
      sum += code * std::nearbyint(static_cast<double>(z[j]) / scale);
    }
    const double row_scale = 0.25 + static_cast<double>(r);
    scored.emplace_back(-static_cast<float>(sum * (row_scale * scale)), static_cast<std::int64_t>(3 * r));
  }
  std::sort(scored.begin(), scored.end());
  std::vector<std::int64_t> ids;
  for (const auto& [score, id] : scored) ids.push_back(id);
  return ids;
}

fllm::SearchOptions best(std::size_t k) {
  fllm::SearchOptions options;
  options.k = k;
  return options;
}

void answers_are_a_plain_sorts(const fllm::Table& table, const std::vector<float>& z) {
  for (const std::size_t k : {std::size_t{1}, kUsers, std::size_t{kRows}}) {
    const fllm::Answer answer = table.search(z, kItems, best(k));
    CHECK(table.search(z.data(), kItems, best(k)).scores == answer.scores);
    for (std::size_t item = 0; item < kItems; ++item) {
      const std::vector<std::int64_t> expected = ranked(z.data() + item * kDim);
      CHECK(std::equal(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(k),
                       answer.user_ids.begin() + static_cast<std::ptrdiff_t>(item * k)));
      CHECK(answer.complete[item] == 1 && answer.rows_scored[item] == kRows && answer.log_probs_exact[item] == 1);
    }
  }
}

void many_threads_share_passes(const std::string& directory, const std::vector<float>& z) {
  fllm::TableOptions options;
  options.threads = 3;
  options.batch_window = std::chrono::microseconds(200);
  fllm::Table table(directory, options);
  const fllm::Answer expected = table.search(z, kItems, best(kUsers));
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 16; ++caller) {
    // Each owns the table for itself; the first handle may be gone before they end.
    callers.emplace_back([table, caller, &z, &expected, &wrong] {
      for (int round = 0; round < 20; ++round) {
        const std::size_t items = 1 + static_cast<std::size_t>(caller + round) % kItems;
        const fllm::Answer found = table.search({z.data(), items * kDim}, items, best(kUsers));
        if (!std::equal(found.user_ids.begin(), found.user_ids.end(), expected.user_ids.begin())) ++wrong;
      }
    });
  }
  for (int round = 0; round < 10; ++round) table.reopen();
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

void a_search_can_be_cancelled_or_cut(const fllm::Table& table, const std::vector<float>& z) {
  fllm_cancel cancel{1};
  fllm::SearchOptions options = best(kUsers);
  options.cancel = &cancel;
  fllm_status status = FLLM_OK;
  try {
    table.search(z, kItems, options);
  } catch (const fllm::Error& error) {
    status = error.status();
  }
  CHECK(status == FLLM_CANCELLED);
  options.cancel = nullptr;
  options.budget = std::chrono::duration<double, std::milli>(1e-6);
  const fllm::Answer cut = table.search(z, kItems, options);
  CHECK(cut.rows_scored[0] > 0);
  CHECK((cut.complete[0] == 1) == (cut.rows_scored[0] == kRows));
}

void filters_leave_users_out(const fllm::Table& table, const std::vector<float>& z) {
  const std::vector<std::int64_t> all = ranked(z.data());
  const fllm::Filter deny = table.filter(std::span(all).first(10), FLLM_DENY);
  fllm::SearchOptions options = best(5);
  options.filter = &deny;
  const fllm::Answer answer = table.search({z.data(), kDim}, 1, options);
  CHECK(std::equal(answer.user_ids.begin(), answer.user_ids.end(), all.begin() + 10));
  const std::int64_t chosen[] = {all[7], all[3], -4};
  const fllm::Filter allow = table.filter(chosen, FLLM_ALLOW);
  options.filter = &allow;
  const fllm::Answer few = table.search({z.data(), kDim}, 1, options);
  CHECK((few.user_ids == std::vector<std::int64_t>{all[3], all[7], -1, -1, -1}));
}

double logsumexp_of_all(const fllm::Table& table, const float* z) {
  const fllm::Answer all = table.search({z, kDim}, 1, best(table.describe().rows));
  double sum = 0;
  for (const float score : all.scores) sum += std::exp(static_cast<double>(score) - all.scores[0]);
  return all.scores[0] + std::log(sum);
}

// Items as they are, and so short that every user counts. A small table is summed up where others are estimated.
void log_probabilities_are_off_by_no_more_than_told(const fllm::Table& table, std::vector<float> z, bool small) {
  for (const float length : {1.0f, 1e-6f}) {
    for (float& number : z) number *= length;
    for (const fllm_log_probs kind : {FLLM_LOG_PROBS_EXACT, FLLM_LOG_PROBS_ESTIMATE, FLLM_LOG_PROBS_CERTIFIED}) {
      fllm::SearchOptions options = best(kUsers);
      options.log_probs = kind;
      const fllm::Answer answer = table.search(z, kItems, options);
      for (std::size_t item = 0; item < kItems; ++item) {
        const double off = answer.logsumexp[item] - logsumexp_of_all(table, z.data() + item * kDim);
        CHECK(std::abs(off) <= answer.log_prob_error[item]);
        const bool estimated = kind == FLLM_LOG_PROBS_ESTIMATE && !small;
        CHECK((answer.log_probs_exact[item] == 1) == (!estimated && kind != FLLM_LOG_PROBS_CERTIFIED));
        if (!estimated) CHECK(answer.log_probs_certified[item] == 1);
        if (kind == FLLM_LOG_PROBS_EXACT) CHECK(answer.log_prob_error[item] < 1e-3 + 1e-5 * answer.logsumexp[item]);
      }
    }
  }
  fllm::SearchOptions options = best(kUsers);
  options.log_probs = FLLM_LOG_PROBS_NONE;
  const fllm::Answer without = table.search(z, kItems, options);
  CHECK(std::isnan(without.log_prob_error[0]) && without.log_probs_certified[0] == 0);
}

fllm_status status_of(const fllm::Table& table, const fllm_search_options& options, const float* z, fllm_error* error) {
  fllm_answer answer = FLLM_ANSWER_INIT;
  return fllm_table_search(table.get(), z, 1, &options, &answer, error);
}

void unfit_arguments_are_told(const fllm::Table& table, std::vector<float> z) {
  fllm_error error;
  fllm_search_options options = FLLM_SEARCH_OPTIONS_INIT;
  options.k = kRows + 1;
  CHECK(status_of(table, options, z.data(), &error) == FLLM_USAGE);
  CHECK(std::string(error.message).find("from 1 to 3000") != std::string::npos);
  CHECK(status_of(table, options, z.data(), nullptr) == FLLM_USAGE);
  options.k = 5;
  options.exact = 0;
  CHECK(status_of(table, options, z.data(), &error) == FLLM_USAGE);
  options.log_probs = FLLM_LOG_PROBS_CERTIFIED;
  CHECK(status_of(table, options, z.data(), &error) == FLLM_USAGE);
  options.exact = 1;
  options.log_probs = FLLM_LOG_PROBS_CERTIFIED + 1;
  CHECK(status_of(table, options, z.data(), &error) == FLLM_USAGE);
  options.log_probs = FLLM_LOG_PROBS_EXACT;
  options.size += 8;
  CHECK(status_of(table, options, z.data(), &error) == FLLM_USAGE);
  // An older caller's struct, without its last members.
  options.size = offsetof(fllm_search_options, seeds);
  CHECK(status_of(table, options, z.data(), &error) == FLLM_OK);
  options.size = sizeof options;
  z[3] = NAN;
  CHECK(status_of(table, options, z.data(), &error) == FLLM_USAGE);
  fllm_table* none = nullptr;
  CHECK(fllm_table_open("/nowhere", nullptr, &none, &error) == FLLM_BUNDLE);
  CHECK(none == nullptr && error.message[0] != '\0');
}

}  // namespace

int main() {
  const writer::Directory directory;
  writer::write_table(directory, {1024, 1024, 952}, kDim, 256);
  const std::vector<float> z = item_vectors();
  const fllm::Table table(directory.path());
  answers_are_a_plain_sorts(table, z);
  many_threads_share_passes(directory.path(), z);
  a_search_can_be_cancelled_or_cut(table, z);
  filters_leave_users_out(table, z);
  log_probabilities_are_off_by_no_more_than_told(table, z, true);
  const writer::Directory larger;
  writer::write_table(larger, {8192, 8192, 2008}, kDim, 256);
  log_probabilities_are_off_by_no_more_than_told(fllm::Table(larger.path()), z, false);
  unfit_arguments_are_told(table, z);
  return check::result();
}
