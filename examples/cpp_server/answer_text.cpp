#include "answer_text.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

namespace server {

namespace {

constexpr std::size_t kUserBytes = 96;  // of a user with its three fields, about

void append(std::string& text, std::int64_t number) {
  std::array<char, 24> digits;
  text.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr);
}

// The shortest digits that give the same double; JSON has no word for what is not finite.
void append(std::string& text, double number) {
  if (!std::isfinite(number)) {
    text += "null";
    return;
  }
  std::array<char, 32> digits;
  text.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr);
}

void append(std::string& text, std::string_view name, bool value) {
  text.append(",\"").append(name).append(value ? "\":true" : "\":false");
}

void append_users(std::string& text, const fllm::Answer& answer, std::size_t item) {
  text += "{\"users\":[";
  bool first = true;
  for (std::size_t i = item * answer.k; i < (item + 1) * answer.k; ++i) {
    if (answer.user_ids[i] < 0) continue;  // the budget ended before it was found
    text += first ? "{\"user_id\":" : ",{\"user_id\":";
    append(text, answer.user_ids[i]);
    text += ",\"score\":";
    append(text, static_cast<double>(answer.scores[i]));
    text += ",\"log_prob\":";
    append(text, static_cast<double>(answer.log_probs[i]));
    text += '}';
    first = false;
  }
  text += ']';
}

void append_item(std::string& text, const fllm::Answer& answer, std::size_t item, bool exact) {
  append_users(text, answer, item);
  text += ",\"logsumexp\":";
  append(text, static_cast<double>(static_cast<float>(answer.logsumexp[item])));
  text += ",\"coverage\":";
  const double rows = static_cast<double>(answer.rows_scored[item]);
  append(text, static_cast<double>(static_cast<float>(rows / static_cast<double>(answer.rows))));
  const bool complete = answer.complete[item] != 0;
  append(text, "complete", complete);
  append(text, "exact", exact && complete);
  append(text, "log_probs_exact", answer.log_probs_exact[item] != 0);
  text += ",\"log_prob_error\":";
  append(text, static_cast<double>(answer.log_prob_error[item]));
  append(text, "log_probs_certified", answer.log_probs_certified[item] != 0);
  text += '}';
}

}  // namespace

std::string answer_text(const fllm::Answer& answer, bool exact, const Timings& timings_ms) {
  std::string text = "{\"items\":[";
  text.reserve(answer.user_ids.size() * kUserBytes + answer.items * 2 * kUserBytes + 4 * kUserBytes);
  for (std::size_t item = 0; item < answer.items; ++item) {
    if (item > 0) text += ',';
    append_item(text, answer, item, exact);
  }
  text += "],\"generation\":";
  append(text, answer.generation);
  text += ",\"timings_ms\":{";
  for (std::size_t i = 0; i < timings_ms.size(); ++i) {
    text.append(i > 0 ? ",\"" : "\"").append(timings_ms[i].first).append("\":");
    append(text, timings_ms[i].second);
  }
  text += "}}";
  return text;
}

}  // namespace server
