#include "changes/draft.hpp"

#include <algorithm>
#include <cstdio>
#include <random>
#include <set>

#include "changes/sha256.hpp"
#include "status.hpp"

namespace fllm::changes {

namespace {

using nlohmann::json;

constexpr std::uint64_t kMergedRows = 16384;
constexpr const char* kTombstones = "tombstones";  // a member of table.json, a reader feature, and a kind of file

std::string random_token() {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", static_cast<unsigned>(std::random_device()()));
  return text;
}

json entry(const FileFacts& file, std::uint64_t rows) {
  return {{"name", file.name}, {"rows", rows}, {"bytes", file.bytes}, {"sha256", file.sha256}};
}

// What readers must know, sorted: as before, but that a change may bring the first tombstones or take the last ones.
json features_of(const json& document) {
  std::set<std::string> names = document.value("reader_features", std::set<std::string>());
  names.erase(kTombstones);
  if (document.contains(kTombstones)) names.insert(kTombstones);
  return names;
}

std::uint64_t rows_of(const json& shards) {
  std::uint64_t rows = 0;
  for (const json& shard : shards) rows += shard["rows"].get<std::uint64_t>();
  return rows;
}

}  // namespace

Draft::Draft(const Snapshot& now, Disk& disk)
    : now_(now),
      maker_(now),
      token_(random_token()),
      publication_(disk, now.directory, token_),
      marks_(now.table),
      kept_(now.table.layout().shards.size()),
      waiting_(now.table.layout()),
      next_(now.document) {}

std::string Draft::name(const std::string& kind) const {
  char generation[32];
  std::snprintf(generation, sizeof generation, "%08lld", static_cast<long long>(now_.table.layout().generation + 1));
  return std::string(generation) + "-" + token_ + "-" + kind + ".safetensors";
}

void Draft::remove(std::span<const std::uint64_t> rows) { marks_.add(rows, now_.table.layout().stored_rows); }

void Draft::add(const GivenRows& rows) {
  const std::size_t dim = now_.table.layout().dim;
  for (std::size_t start = 0; start < rows.n; start += maker_.shard_rows()) {
    const std::size_t count = std::min(maker_.shard_rows(), rows.n - start);
    StoredRows part(now_.table.layout());
    part.encode({rows.rows + start * dim, rows.bias == nullptr ? nullptr : rows.bias + start, rows.ids + start, count});
    add(part);
  }
}

void Draft::add(const StoredRows& rows) {
  for (std::size_t start = 0; start < rows.size();) {
    const std::size_t stop = std::min(start + maker_.shard_rows() - waiting_.size(), rows.size());
    waiting_.take(rows, start, stop);
    start = stop;
    if (waiting_.size() == maker_.shard_rows()) write_waiting();
  }
}

void Draft::write_waiting() {
  if (waiting_.size() == 0) return;
  char number[8];
  std::snprintf(number, sizeof number, "%03zu", added_.size());
  added_.push_back(entry(maker_.write(waiting_, name(number), publication_), waiting_.size()));
  waiting_ = StoredRows(now_.table.layout());
}

void Draft::merge() {
  if (waiting_.size() == 0 || !added_.empty()) return;
  const std::vector<ShardEntry>& shards = now_.table.layout().shards;
  const std::vector<Tile>& tiles = now_.table.tiles();
  std::uint64_t first = now_.table.layout().stored_rows;
  auto end = tiles.end();
  while (kept_ > 0) {
    const std::uint64_t rows = shards[kept_ - 1].rows;
    if (rows > waiting_.size() || rows + waiting_.size() > kMergedRows) return;
    first -= rows;
    const auto begin = std::partition_point(tiles.begin(), end, [first](const Tile& t) { return t.first_row < first; });
    StoredRows taken(now_.table.layout());
    for (auto tile = begin; tile != end; ++tile) taken.take(*tile, marks_);
    end = begin;
    add(taken);
    --kept_;
  }
}

void Draft::save_marks() {
  std::uint64_t kept = 0;
  for (std::size_t i = 0; i < kept_; ++i) kept += now_.table.layout().shards[i].rows;
  marks_.keep(kept);
  if (!marks_.changed()) return;
  next_.erase(kTombstones);
  if (marks_.rows() == 0) return;
  const std::vector<std::uint8_t>& bits = marks_.bits();
  const FileFacts file = publication_.write(name(kTombstones), {{"format", "fllm-tombstones"}},
                                            {{"deleted", "U8", {bits.size()}, bits.data(), bits.size()}});
  next_[kTombstones] = entry(file, marks_.rows());
  next_[kTombstones]["deleted"] = marks_.deleted();
}

// Members that this library does not know stay as they are.
std::string Draft::text() {
  write_waiting();
  save_marks();
  json& shards = next_["shards"];
  shards.erase(shards.begin() + static_cast<std::ptrdiff_t>(kept_), shards.end());
  shards.insert(shards.end(), added_.begin(), added_.end());
  next_["reader_features"] = features_of(next_);
  next_["generation"] = now_.table.layout().generation + 1;
  next_["rows"] = rows_of(shards) - marks_.deleted();
  // What tables of the first releases leave out, and every writer says since.
  next_.emplace("identity", "");
  next_.emplace("sketch_dims", 0);
  next_.emplace("tile_bounds", false);
  next_.erase("sha256");
  next_["sha256"] = sha256(next_.dump());
  return next_.dump(2) + "\n";
}

void Draft::publish() {
  const std::string next = text();
  if (now_.text_now() != now_.text) {
    throw Error(Status::usage, sentence(now_.directory + " was changed by another writer meanwhile",
                                        "one writer at a time", "Repeat the change"));
  }
  publication_.prepare(now_.text, next);
  publication_.publish();
}

}  // namespace fllm::changes
