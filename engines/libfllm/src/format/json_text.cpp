#include "format/json_text.hpp"

#include <cstdio>

namespace fllm {

namespace {

using nlohmann::json;

constexpr std::size_t kShownBytesMax = 200;

void append_string(std::string& out, const std::string& text) {
  out += '\'';
  for (const char c : text) {
    if (out.size() > kShownBytesMax) return;
    const unsigned byte = static_cast<unsigned char>(c);
    if (c == '\'' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", byte);
      out += escape;
    } else {
      out += c;
    }
  }
  out += '\'';
}

void append(std::string& out, const json& value) {
  if (value.is_string()) return append_string(out, value.get_ref<const std::string&>());
  if (value.is_null()) {
    out += "None";
  } else if (value.is_boolean()) {
    out += value.get<bool>() ? "True" : "False";
  } else if (!value.is_structured()) {
    out += value.dump();
  } else {
    const char* separator = "";
    out += value.is_array() ? "[" : "{";
    for (const auto& [name, member] : value.items()) {
      if (out.size() > kShownBytesMax) return;
      out += separator;
      separator = ", ";
      if (value.is_object()) {
        append_string(out, name);
        out += ": ";
      }
      append(out, member);
    }
    out += value.is_array() ? "]" : "}";
  }
}

}  // namespace

std::string shown(const json& value) {
  std::string text;
  append(text, value);
  if (text.size() <= kShownBytesMax) return text;
  std::size_t end = kShownBytesMax;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // never within a character
  return text.substr(0, end) + "...";
}

const char* type_name(const json& value) {
  if (value.is_object()) return "dict";
  if (value.is_array()) return "list";
  if (value.is_string()) return "str";
  if (value.is_boolean()) return "bool";
  if (value.is_number_integer()) return "int";
  return value.is_null() ? "NoneType" : "float";
}

}  // namespace fllm
