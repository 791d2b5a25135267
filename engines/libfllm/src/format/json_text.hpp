// JSON from files that nobody has vouched for, and its values as messages show them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace fllm {

// Throws std::invalid_argument, saying why, when the text is not JSON. Refused too is what one reader may understand
// differently from the next: a name that stands twice in an object, and nesting deeper than 64.
nlohmann::json parse_json(std::string_view text);

// A value, or a string, as Python's repr writes it; a long one is cut.
std::string shown(const nlohmann::json& value);

// Name of a value's type in Python.
const char* type_name(const nlohmann::json& value);

}  // namespace fllm
