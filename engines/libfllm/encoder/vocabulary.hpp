// Token texts and their ids.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "encoder/json_field.hpp"
#include "encoder/model.hpp"

namespace fllm {

class Vocabulary {
 public:
  // Reads the field "vocab" of a model. Throws Error(Status::bundle): it is no map from texts to ids.
  explicit Vocabulary(const JsonObject& model);

  std::optional<TokenId> find(std::string_view token) const;
  std::size_t size() const { return ids_.size(); }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  std::unordered_map<std::string, TokenId, Hash, std::equal_to<>> ids_;
};

}  // namespace fllm
