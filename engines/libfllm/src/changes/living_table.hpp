// Changes of a table that readers have open: users are deleted, appended and updated (docs/guides/living_tables.md).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "changes/disk.hpp"
#include "changes/draft.hpp"
#include "changes/stored_rows.hpp"

namespace fllm::changes {

// What a change has made of a table.
struct Change {
  std::int64_t generation = 0;
  std::uint64_t users = 0;  // in the table now
  std::uint64_t appended = 0, updated = 0, deleted = 0;
  std::uint64_t shards = 0;        // files of rows now
  std::uint64_t deleted_rows = 0;  // that are still stored, and are marked as deleted
};

// The writer of a table, in Python's words fllm_export.table.living.LivingTable: each call takes the writer's lock, and
// reads what others have published since. A call that has returned is durable; one that throws has changed nothing,
// but for an error of the last sync, which says so.
//
// All calls throw Error: Status::usage when an argument is invalid, another writer is at work, the generation is not
// the given one, or libfllm cannot make such a change; Status::bundle when the table is damaged or the disk fails;
// Status::memory when a limit of the system is reached, such as space on the disk.
class LivingTable {
 public:
  LivingTable(std::string directory, Disk& disk) : directory_(std::move(directory)), disk_(disk) {}

  Change remove(std::span<const std::int64_t> ids, std::optional<std::int64_t> if_generation = {});

  // Rows are those of `dim` numbers.
  Change append(const GivenRows& rows, std::size_t dim, std::optional<std::int64_t> if_generation = {});
  Change update(const GivenRows& rows, std::size_t dim, std::optional<std::int64_t> if_generation = {});

 private:
  using Work = std::function<void(const Snapshot&, Draft&)>;

  Change drafted(std::optional<std::int64_t> if_generation, bool gives_rows, const Work& work);
  Change put(const GivenRows& rows, std::size_t dim, std::optional<std::int64_t> if_generation, bool fresh);

  std::string directory_;
  Disk& disk_;
};

}  // namespace fllm::changes
