// Further shards of a table: rows in its own codec, sketch and tiles (fllm_export/table/segments.py).
#pragma once

#include <cstdint>
#include <string>

#include "changes/publication.hpp"
#include "changes/snapshot.hpp"
#include "changes/stored_rows.hpp"

namespace fllm::changes {

class SegmentMaker {
 public:
  explicit SegmentMaker(const Snapshot& now);

  // Rows of a full shard.
  std::size_t shard_rows() const { return shard_rows_; }

  // Writes a shard of rows, at least one, whose ids are different.
  FileFacts write(const StoredRows& rows, const std::string& name, Publication& publication) const;

 private:
  const Table& table_;
  const Layout& layout_;
  std::size_t shard_rows_;
};

}  // namespace fllm::changes
