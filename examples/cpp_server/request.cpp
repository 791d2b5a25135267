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

void read_option(Request& request, const std::string& name, const json& value) {
  if (name == "k") {
    request.k = whole(value, "k");
  } else if (name == "mode") {
    if (value != "topk" && value != "sample") refuse("mode is " + shown(value) + "; expected topk or sample.");
    request.mode = value == "sample" ? FLLM_SAMPLE : FLLM_TOPK;
  } else if (name == "budget_ms") {
    if (value.is_null()) return;
    if (!value.is_number() || !(value.get<double>() > 0)) refuse("budget_ms is not a number of milliseconds above 0.");
    request.budget_ms = value.get<double>();
  } else if (name == "seed") {
    for (const json& seed : value.is_array() ? value : json::array({value})) {
      request.seeds.push_back(whole(seed, "seed"));
    }
  } else {
    refuse("the field '" + name.substr(0, 60) +
           "' is unknown; expected text, texts, token_ids or item_vectors, and k, mode, seed, budget_ms.");
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
      read_option(request, name, value);
    }
  }
  if (sources != 1) refuse("expected exactly one of text, texts, token_ids and item_vectors.");
  if (request.seeds.empty()) request.seeds.push_back(0);
  if (request.seeds.size() == 1) request.seeds.resize(request.size(), request.seeds[0]);
  if (request.seeds.size() != request.size()) refuse("seed holds neither one integer nor one per item.");
  if (request.k > limits.answer_users / request.size()) {
    refuse("k times the number of items is more than " + std::to_string(limits.answer_users) + "; request fewer.");
  }
  return request;
}

}  // namespace server
