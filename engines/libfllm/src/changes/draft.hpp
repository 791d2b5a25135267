// The next generation of a table while it is made: which shards stay, what is added, which rows are deleted.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "changes/disk.hpp"
#include "changes/marks.hpp"
#include "changes/publication.hpp"
#include "changes/segment.hpp"
#include "changes/snapshot.hpp"

namespace fllm::changes {

// As fllm_export.table.draft. Functions throw Refusal when the system refuses.
class Draft {
 public:
  Draft(const Snapshot& now, Disk& disk);

  // Marks stored rows, given by their numbers in scan order, as deleted.
  void remove(std::span<const std::uint64_t> rows);

  // Takes in rows; full shards are written at once.
  void add(const GivenRows& rows);

  // Lets the rows that wait take in the shards before them that are no larger, deleted rows left out, as long as there
  // are no more than 16,384 rows: so the number of small shards grows with the logarithm of the number of changes.
  void merge();

  // Puts the next generation in place. Throws Error (Status::usage) when another writer has changed the table since.
  void publish();

  // Whether the new table.json may be in place.
  bool publishing() const { return publication_.begun(); }

  // table.json of the next generation, once it is published.
  const nlohmann::json& document() const { return next_; }

 private:
  void add(const StoredRows& rows);
  void write_waiting();
  void save_marks();
  std::string text();
  std::string name(const std::string& kind) const;

  const Snapshot& now_;
  SegmentMaker maker_;
  std::string token_;
  Publication publication_;
  Marks marks_;
  std::size_t kept_;  // the table's first shards, which stay
  StoredRows waiting_;
  nlohmann::json next_, added_ = nlohmann::json::array();
};

}  // namespace fllm::changes
