#include "request.hpp"

#include <algorithm>
#include <cmath>
#include <fllm/json.hpp>
#include <limits>
#include <nlohmann/json.hpp>

namespace server {

namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& why) { throw fllm::Error(FLLM_USAGE, why); }

json parsed(std::string_view body) {
  try {
    return fllm::parse_json(body);
  } catch (const std::invalid_argument& failure) {
    refuse("the body is not JSON: " + std::string(failure.what()) + ".");
  }
}

// The beginning of a value, as messages quote it.
std::string shown(const json& value) { return value.dump().substr(0, 60); }

void limit_items(std::size_t count, const std::string& field, const Options& limits) {
  if (count < 1 || count > limits.items) {
    refuse(field + " has " + std::to_string(count) + " items; expected 1 to " + std::to_string(limits.items) + ".");
  }
}

const json& list(const json& value, const std::string& field) {
  if (!value.is_array()) refuse(field + " is not a list.");
  return value;
}

Texts texts_of(const json& value, const Options& limits) {
  limit_items(list(value, "texts").size(), "texts", limits);
  Texts texts;
  for (const json& text : value) {
    if (!text.is_string()) refuse("texts holds something that is not a string.");
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

TokenIds token_ids_of(const json& value, const Options& limits) {
  limit_items(list(value, "token_ids").size(), "token_ids", limits);
  TokenIds items;
  for (const json& item : value) {
    auto& ids = items.emplace_back();
    for (const json& id : list(item, "an item of token_ids")) {
      const bool fits = id.is_number_unsigned() && id.get<std::uint64_t>() <= INT32_MAX;
      if (!fits) refuse("token_ids holds something that is not a token id.");
      ids.push_back(id.get<std::int64_t>());
    }
  }
  return items;
}

ItemVectors item_vectors_of(const json& value, const Options& limits) {
  limit_items(list(value, "item_vectors").size(), "item_vectors", limits);
  ItemVectors items;
  for (const json& item : value) {
    auto& vector = items.emplace_back();
    for (const json& number : list(item, "an item of item_vectors")) {
      if (!number.is_number()) refuse("item_vectors holds something that is not a number.");
      const double wide = number.get<double>();
      if (!(std::abs(wide) <= static_cast<double>(std::numeric_limits<float>::max()))) {
        refuse("item_vectors holds a number that is not finite in float32.");
      }
      vector.push_back(static_cast<float>(wide));
    }
  }
  return items;
}

std::uint64_t whole(const json& value, const std::string& field) {
  if (!value.is_number_unsigned()) refuse(field + " is " + shown(value) + "; expected an integer of at least 0.");
  return value.get<std::uint64_t>();
}

std::vector<std::int64_t> user_ids(const json& value, const std::string& field) {
  std::vector<std::int64_t> ids;
  for (const json& id : list(value, field)) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > INT64_MAX) {
      refuse(field + " holds something that is not a user id.");
    }
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

fllm_log_probs log_probs_of(const json& value) {
  if (value == "exact") return FLLM_LOG_PROBS_EXACT;
  if (value == "estimate") return FLLM_LOG_PROBS_ESTIMATE;
  if (value == "none") return FLLM_LOG_PROBS_NONE;
  if (value == "certified") return FLLM_LOG_PROBS_CERTIFIED;
  refuse("log_probs is " + shown(value) + "; expected exact, estimate, none or certified.");
}

// Options that null leaves at their defaults.
bool read_nullable(Request& request, const std::string& name, const json& value) {
  if (name == "budget_ms") {
    if (value.is_null()) return true;
    if (!value.is_number() || !(value.get<double>() > 0)) refuse("budget_ms is not a number of milliseconds above 0.");
    request.budget_ms = value.get<double>();
  } else if (name == "exact") {
    if (value.is_null()) return true;
    if (!value.is_boolean()) refuse("exact is " + shown(value) + "; expected true or false.");
    request.exact = value.get<bool>();
  } else if (name == "refine") {
    if (value.is_null()) return true;
    request.refine = static_cast<std::uint32_t>(std::min<std::uint64_t>(whole(value, "refine"), INT32_MAX));
  } else if (name == "allow" || name == "deny") {
    if (value.is_null()) return true;
    if (request.listed) refuse("both allow and deny were given; expected one of them.");
    request.listed = user_ids(value, name);
    request.deny = name == "deny";
  } else {
    return false;
  }
  return true;
}

void read_option(Request& request, const std::string& name, const json& value) {
  if (name == "k") {
    request.k = whole(value, "k");
  } else if (name == "mode") {
    if (value != "topk" && value != "sample") refuse("mode is " + shown(value) + "; expected topk or sample.");
    request.mode = value == "sample" ? FLLM_SAMPLE : FLLM_TOPK;
  } else if (name == "seed") {
    for (const json& seed : value.is_array() ? value : json::array({value})) {
      request.seeds.push_back(whole(seed, "seed"));
    }
  } else if (!read_nullable(request, name, value)) {
    refuse("the field '" + name.substr(0, 60) +
           "' is unknown; expected text, texts, token_ids or item_vectors, and k, mode, seed, budget_ms, exact, "
           "log_probs, refine, allow, deny.");
  }
}

}  // namespace

std::size_t Request::size() const {
  return std::visit([](const auto& list) { return list.size(); }, items);
}

Request Request::parse(std::string_view body, const Options& limits) {
  const json document = parsed(body);
  if (!document.is_object()) refuse("the body is not a JSON object.");
  Request request;
  std::size_t sources = 0;
  std::optional<fllm_log_probs> log_probs;
  for (const auto& [name, value] : document.items()) {
    ++sources;
    if (name == "text") {
      request.items = texts_of(json::array({value}), limits);
    } else if (name == "texts") {
      request.items = texts_of(value, limits);
    } else if (name == "token_ids") {
      request.items = token_ids_of(value, limits);
    } else if (name == "item_vectors") {
      request.items = item_vectors_of(value, limits);
    } else {
      --sources;
      if (name == "log_probs") {
        if (!value.is_null()) log_probs = log_probs_of(value);
      } else {
        read_option(request, name, value);
      }
    }
  }
  if (sources != 1) refuse("expected exactly one of text, texts, token_ids and item_vectors.");
  request.log_probs = log_probs.value_or(request.exact ? FLLM_LOG_PROBS_EXACT : FLLM_LOG_PROBS_ESTIMATE);
  const bool certified = request.log_probs == FLLM_LOG_PROBS_CERTIFIED;
  if (!request.exact && (certified || request.log_probs == FLLM_LOG_PROBS_EXACT)) {
    refuse(std::string("log_probs is ") + (certified ? "certified" : "exact") +
           " while exact is false; expected estimate or none.");
  }
  if (request.seeds.empty()) request.seeds.push_back(0);
  if (request.seeds.size() == 1) request.seeds.resize(request.size(), request.seeds[0]);
  if (request.seeds.size() != request.size()) refuse("seed holds neither one integer nor one per item.");
  if (request.k > limits.answer_users / request.size() / std::max<std::size_t>(1, request.refine.value_or(1))) {
    refuse("k times the number of items (and times refine, if it is given) is more than " +
           std::to_string(limits.answer_users) + "; request fewer.");
  }
  return request;
}

}  // namespace server
