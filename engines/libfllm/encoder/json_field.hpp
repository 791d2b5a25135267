// Fields of a JSON file that a reader depends on: read, or refused by name.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace fllm {

// An object inside a JSON file, and the path that names it in messages, such as "tokenizer.json: model".
class JsonObject {
 public:
  // Reads a whole file; throws Error(Status::bundle) where it is missing or is no JSON object.
  static JsonObject load(const std::string& path);

  // Throws Error(Status::bundle): the value is no object.
  JsonObject(nlohmann::json value, std::string name);

  const std::string& name() const { return name_; }
  const nlohmann::json& value() const { return value_; }

  bool has(const char* field) const;  // present and not null
  JsonObject object(const char* field) const;
  const nlohmann::json& array(const char* field) const;
  std::string text(const char* field) const;
  std::string text_or(const char* field, const std::string& otherwise) const;
  bool flag(const char* field, bool otherwise) const;
  std::int64_t integer(const char* field) const;
  std::int64_t integer_or(const char* field, std::int64_t otherwise) const;

  // Throws Error(Status::bundle): the field says something that libfllm does not know how to do.
  [[noreturn]] void unsupported(const char* field, const std::string& expected) const;

  // Throws as `unsupported` unless the field is absent, null, false, or an empty text or list.
  void must_be_off(const char* field) const;

 private:
  [[noreturn]] void wrong(const char* field, const char* expected) const;
  const nlohmann::json& at(const char* field) const;

  nlohmann::json value_;
  std::string name_;
};

}  // namespace fllm
