// Files of a table that no reader needs any more.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "changes/disk.hpp"

namespace fllm::changes {

// Removes files of rows, tombstones and histories that neither of two table.json lists, and what changes that were cut
// off have left. To be called by the one writer, once both are durable. What cannot be removed is left to the next
// change: this one is made.
void remove_unused(const std::string& directory, const nlohmann::json& now, const nlohmann::json& before, Disk& disk);

}  // namespace fllm::changes
