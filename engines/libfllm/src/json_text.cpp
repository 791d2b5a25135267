#include "json_text.hpp"

#include <cstdio>
#include <functional>
#include <set>
#include <stdexcept>
#include <vector>

namespace fllm {

namespace {

using nlohmann::json;

constexpr std::size_t kDepthMax = 64;
constexpr std::size_t kShownBytesMax = 200;

// Sees every name and bracket while the parser reads.
class Watch {
 public:
  bool operator()(int, json::parse_event_t event, json& value) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        if (names_.size() == kDepthMax) {
          throw std::invalid_argument("nested deeper than " + std::to_string(kDepthMax));
        }
        names_.emplace_back();
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        names_.pop_back();
        break;
      case json::parse_event_t::key:
        if (!names_.back().insert(value.get_ref<const std::string&>()).second) {
          throw std::invalid_argument("the name " + shown(value) + " stands twice in one object");
        }
        break;
      case json::parse_event_t::value:
        break;
    }
    return true;
  }

 private:
  std::vector<std::set<std::string>> names_;  // of the objects that are open
};

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

json parse_json(std::string_view text) {
  // The parser takes a zero byte for the end of the text and would not look at what follows.
  const std::size_t zero = text.find('\0');
  if (zero != std::string_view::npos) throw std::invalid_argument("zero byte at " + std::to_string(zero));
  Watch watch;
  try {
    return json::parse(text.begin(), text.end(), std::ref(watch));
  } catch (const json::parse_error& error) {
    // The parser's own words may quote bytes that are not UTF-8.
    throw std::invalid_argument("unreadable at byte " + std::to_string(error.byte));
  } catch (const json::exception&) {
    throw std::invalid_argument("a number is out of range");
  }
}

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
