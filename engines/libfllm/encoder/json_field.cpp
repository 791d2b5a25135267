#include "encoder/json_field.hpp"

#include <stdexcept>
#include <utility>

#include "fllm/json.hpp"
#include "format/json_text.hpp"
#include "machine/file.hpp"
#include "status.hpp"

namespace fllm {

namespace {

constexpr std::size_t kFileBytesMax = std::size_t{1} << 30;  // the largest tokenizers have some dozen MiB

}  // namespace

JsonObject JsonObject::load(const std::string& path) {
  const std::string text = File(path, "a file of the bundle").text(kFileBytesMax);
  try {
    return JsonObject(parse_json(text), path);
  } catch (const std::invalid_argument& failure) {
    throw Error(Status::bundle, sentence(path + " is not JSON: " + failure.what(), "a JSON file"));
  }
}

JsonObject::JsonObject(nlohmann::json value, std::string name) : value_(std::move(value)), name_(std::move(name)) {
  if (!value_.is_object()) throw Error(Status::bundle, sentence(name_ + " is " + shown(value_), "a JSON object"));
}

bool JsonObject::has(const char* field) const {
  const auto found = value_.find(field);
  return found != value_.end() && !found->is_null();
}

const nlohmann::json& JsonObject::at(const char* field) const {
  const auto found = value_.find(field);
  if (found == value_.end()) throw Error(Status::bundle, sentence(name_ + " has no field " + field));
  return *found;
}

void JsonObject::wrong(const char* field, const char* expected) const {
  throw Error(Status::bundle, sentence(name_ + ": " + field + " is " + shown(at(field)), expected));
}

JsonObject JsonObject::object(const char* field) const { return JsonObject(at(field), name_ + ": " + field); }

const nlohmann::json& JsonObject::array(const char* field) const {
  if (!at(field).is_array()) wrong(field, "a list");
  return at(field);
}

std::string JsonObject::text(const char* field) const {
  if (!at(field).is_string()) wrong(field, "a string");
  return at(field).get<std::string>();
}

std::string JsonObject::text_or(const char* field, const std::string& otherwise) const {
  return has(field) ? text(field) : otherwise;
}

bool JsonObject::flag(const char* field, bool otherwise) const {
  if (!has(field)) return otherwise;
  if (!at(field).is_boolean()) wrong(field, "true or false");
  return at(field).get<bool>();
}

std::int64_t JsonObject::integer(const char* field) const {
  if (!at(field).is_number_integer()) wrong(field, "an integer");
  return at(field).get<std::int64_t>();
}

std::int64_t JsonObject::integer_or(const char* field, std::int64_t otherwise) const {
  return has(field) ? integer(field) : otherwise;
}

void JsonObject::unsupported(const char* field, const std::string& expected) const {
  throw Error(Status::bundle, sentence(name_ + ": " + field + " is " + shown(at(field)), expected,
                                       "Tokenise outside of libfllm and pass token ids"));
}

void JsonObject::must_be_off(const char* field) const {
  if (!has(field)) return;
  const nlohmann::json& value = at(field);
  const bool off = value.is_boolean()  ? !value.get<bool>()
                   : value.is_string() ? value.get_ref<const std::string&>().empty()
                                       : value.is_array() && value.empty();
  if (!off) unsupported(field, "none, because libfllm cannot do that");
}

}  // namespace fllm
