// The body of an answer, in the form of fllm_export's TopK.to_dict().
#pragma once

#include <fllm/fllm.hpp>
#include <string>
#include <utility>
#include <vector>

namespace server {

// Stages and their milliseconds, in the order in which they are written.
using Timings = std::vector<std::pair<const char*, double>>;

// Written straight into one string: a tree of JSON values would take some hundred allocations per item.
// `exact`: whether provably the best users were requested.
std::string answer_text(const fllm::Answer& answer, bool exact, const Timings& timings_ms);

}  // namespace server
