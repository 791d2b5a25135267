#include "encoder/vocabulary.hpp"

#include "status.hpp"

namespace fllm {

Vocabulary::Vocabulary(const JsonObject& model) {
  const JsonObject field = model.object("vocab");
  ids_.reserve(field.value().size());
  for (const auto& [token, id] : field.value().items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > 0xFFFFFFFFu) {
      throw Error(Status::bundle,
                  sentence(field.name() + ": a token's id is not an integer of at least 0", "token ids from 0 on"));
    }
    ids_.emplace(token, id.get<TokenId>());
  }
}

std::optional<TokenId> Vocabulary::find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace fllm
