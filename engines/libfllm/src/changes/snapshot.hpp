// A table as a change finds it: what is open, and the text of table.json that the next one is made of.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "format/table.hpp"

namespace fllm::changes {

struct Snapshot {
  // The caller holds the writer's lock. Throws Error: Status::bundle when the table is damaged (a table.json that is
  // not JSON is not for a writer to pass over), Status::usage when it is being replaced.
  explicit Snapshot(const std::string& directory);

  // Throws Error (Status::usage) where libfllm cannot make the next generation, naming what stands against it.
  // `rows`: the change gives rows.
  void require_changeable(bool rows) const;

  // The text of table.json now. Throws Error (Status::bundle) when it cannot be read.
  std::string text_now() const;

  std::string directory, path, text;
  nlohmann::json document;
  Table table;
};

}  // namespace fllm::changes
