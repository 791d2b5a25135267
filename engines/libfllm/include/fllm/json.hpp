// JSON from strangers, for programs around libfllm: what a request or a file says, or the reason why it is refused.
// Header only; needs nlohmann/json.hpp (the CMake module FindNlohmannJson.cmake beside fllmConfig.cmake finds it).
#ifndef FLLM_JSON_HPP
#define FLLM_JSON_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fllm {
inline namespace v1 {

// Builds the value while the parser reads. The parser's own builder keeps the last of two members of one name, and with
// a callback to see them it takes time quadratic in the length of an array.
class JsonBuilder : public nlohmann::json_sax<nlohmann::json> {
  using json = nlohmann::json;

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
    if (!fresh) throw std::invalid_argument("the name '" + shown(member->first) + "' stands twice in one object");
    member_ = &member->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    // The parser's own words may quote bytes that are not UTF-8.
    throw std::invalid_argument("unreadable at byte " + std::to_string(position));
  }

 private:
  static constexpr std::size_t kDepthMax = 64;        // levels
  static constexpr std::size_t kShownBytesMax = 200;  // of a name in a message

  // A name in ASCII, a long one cut.
  static std::string shown(const std::string& name) {
    const std::string quoted = json(name).dump(-1, ' ', /*ensure_ascii=*/true);
    return quoted.substr(1, std::min(quoted.size() - 2, kShownBytesMax));
  }

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

// Throws std::invalid_argument, saying why, when the text is not JSON. Also refused is what another reader may
// understand differently: a name that stands twice in one object, a zero byte, and nesting deeper than 64 levels, which
// a value's own copy, comparison or output would follow by recursion.
inline nlohmann::json parse_json(std::string_view text) {
  // The parser takes a zero byte for the end of the text and would not look at what follows.
  const std::size_t zero = text.find('\0');
  if (zero != std::string_view::npos) throw std::invalid_argument("zero byte at " + std::to_string(zero));
  JsonBuilder builder;
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace v1
}  // namespace fllm

#endif  // FLLM_JSON_HPP
