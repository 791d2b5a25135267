#include "format/json_text.hpp"

#include <cstdio>
#include <stdexcept>
#include <utility>
#include <vector>

namespace fllm {

namespace {

using nlohmann::json;

constexpr std::size_t kDepthMax = 64;
constexpr std::size_t kShownBytesMax = 200;

// Builds the value while the parser reads. The parser's own builder keeps the last of two members of one name, and with
// a callback to see them it takes time quadratic in the length of an array.
class Builder : public nlohmann::json_sax<json> {
 public:
  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(std::int64_t value) override { return add(value); }
  bool number_unsigned(std::uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(json::binary_t& value) override { return add(std::move(value)); }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    const auto [member, fresh] = open_.back()->get_ref<json::object_t&>().emplace(std::move(name), nullptr);
    if (!fresh) throw std::invalid_argument("the name " + shown(json(member->first)) + " stands twice in one object");
    member_ = &member->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    // The parser's own words may quote bytes that are not UTF-8.
    throw std::invalid_argument("unreadable at byte " + std::to_string(position));
  }

 private:
  bool add(json value) {
    *place() = std::move(value);
    return true;
  }

  bool open(json value) {
    if (open_.size() == kDepthMax) throw std::invalid_argument("nested deeper than " + std::to_string(kDepthMax));
    json* container = place();
    *container = std::move(value);
    open_.push_back(container);
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  // Where the next value goes.
  json* place() {
    if (open_.empty()) return &root_;
    if (open_.back()->is_object()) return member_;
    json::array_t& elements = open_.back()->get_ref<json::array_t&>();
    elements.emplace_back();
    return &elements.back();
  }

  json root_;
  std::vector<json*> open_;  // containers; none grows while one inside it is open, so they stay where they are
  json* member_ = nullptr;
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
  Builder builder;
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
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
