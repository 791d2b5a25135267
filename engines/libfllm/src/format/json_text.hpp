// JSON values as messages show them; fllm/json.hpp reads them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace fllm {

// A value, or a string, as Python's repr writes it; a long one is cut.
std::string shown(const nlohmann::json& value);

// Name of a value's type in Python.
const char* type_name(const nlohmann::json& value);

}  // namespace fllm
