// The body of POST /topk.
#pragma once

#include <cstdint>
#include <fllm/fllm.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "options.hpp"

namespace server {

using Texts = std::vector<std::string>;
using TokenIds = std::vector<std::vector<std::int64_t>>;
using ItemVectors = std::vector<std::vector<float>>;

struct Request {
  std::variant<Texts, TokenIds, ItemVectors> items;
  std::size_t k = 100;
  fllm_mode mode = FLLM_TOPK;
  std::vector<std::uint64_t> seeds;  // one per item
  std::optional<double> budget_ms;
  bool exact = true;
  fllm_log_probs log_probs = FLLM_LOG_PROBS_EXACT;
  std::optional<std::uint32_t> refine;
  std::optional<std::vector<std::int64_t>> listed;  // users of the filter
  bool deny = false;                                // whether these users are left out, rather than all others

  std::size_t size() const;

  // Throws fllm::Error(FLLM_USAGE): the body is not such a request, or is larger than the options allow.
  static Request parse(std::string_view body, const Options& limits);
};

}  // namespace server
