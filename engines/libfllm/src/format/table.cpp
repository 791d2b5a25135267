#include "format/table.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <filesystem>

#include "format/refinement.hpp"
#include "format/shard.hpp"
#include "machine/memory.hpp"
#include "status.hpp"

namespace fllm {

namespace {

constexpr int kAttempts = 100;

// What tells the table.json that lies in a directory from one that takes its place.
class FileIdentity {
 public:
  explicit FileIdentity(const std::string& directory) {
    const std::string path = (std::filesystem::path(directory) / Layout::kFileName).string();
    found_ = ::stat(path.c_str(), &status_) == 0;
  }

  bool operator==(const FileIdentity& other) const {
    if (!found_ || !other.found_) return found_ == other.found_;
    return status_.st_dev == other.status_.st_dev && status_.st_ino == other.status_.st_ino &&
           status_.st_size == other.status_.st_size && status_.st_mtim.tv_sec == other.status_.st_mtim.tv_sec &&
           status_.st_mtim.tv_nsec == other.status_.st_mtim.tv_nsec;
  }

 private:
  struct stat status_{};
  bool found_ = false;
};

bool prefetch_rows(const Mapping& mapping, const void* data, std::size_t bytes) {
  if (data == nullptr || bytes == 0) return false;
  return mapping.prefetch(static_cast<std::size_t>(static_cast<const std::uint8_t*>(data) - mapping.data()), bytes);
}

}  // namespace

Table::Table(const std::string& directory, Residency residency) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const FileIdentity before(directory);
    std::vector<Shard> shards;
    std::exception_ptr failure;
    try {
      shards = map(directory, residency);
    } catch (...) {
      failure = std::current_exception();
    }
    // Another table has taken the place of this one: what was mapped, or what failed, may be of both.
    if (!(FileIdentity(directory) == before)) continue;
    if (failure) std::rethrow_exception(failure);
    collect_sketches(shards);
    cut(shards);
    return;
  }
  throw Error(Status::bundle,
              sentence(directory + " was replaced " + std::to_string(kAttempts) + " times while it was being opened",
                       "a table that is not replaced while it is opened"));
}

void Table::read_layout(const std::string& directory, Residency residency) {
  layout_ = Layout::load(directory);
  tombstones_ = layout_.tombstones.deleted > 0 ? Tombstones(directory, layout_.tombstones) : Tombstones();
  if (residency.parts == 0) return;
  const std::uint64_t first = layout_.keep_part(residency.part, residency.parts);
  tombstones_ = tombstones_.slice(first, layout_.stored_rows);
  layout_.tombstones.deleted = tombstones_.count(0, layout_.stored_rows);
  layout_.rows = layout_.stored_rows - layout_.tombstones.deleted;
  if (layout_.rows == 0) {
    throw Error(Status::usage, sentence("part " + std::to_string(residency.part) + " of " +
                                            std::to_string(residency.parts) + " of " + directory + " holds no user",
                                        "a part with users", "Divide the table into fewer parts"));
  }
}

std::vector<Shard> Table::map(const std::string& directory, Residency residency) {
  read_layout(directory, residency);
  mappings_.clear();
  std::vector<Shard> shards;
  std::uint64_t bytes = 0;
  for (const ShardEntry& entry : layout_.shards) {
    const std::string path = (std::filesystem::path(directory) / entry.name).string();
    mappings_.push_back(std::make_unique<Mapping>(path));
    shards.push_back(view(*mappings_.back(), entry));
    mappings_.back()->expect_scan();
    bytes += mappings_.back()->size();
  }
  if (residency.resident) {
    // Only now that every header is known to be good and the sum to fit: reading may take minutes.
    require_memory(bytes, directory);
    for (std::size_t i = 0; i < shards.size(); ++i) {
      mappings_[i] = std::make_unique<Mapping>(mappings_[i]->path(), true);
      shards[i] = view(*mappings_[i], layout_.shards[i]);
    }
  }
  refinement_.reset();
  if (layout_.refinement) refinement_ = std::make_unique<Refinement>(directory, layout_, shards);
  return shards;
}

Table::~Table() = default;

Shard Table::view(const Mapping& mapping, const ShardEntry& entry) const {
  return Shard::view(read_tensors(mapping.data(), mapping.size(), mapping.path()), layout_, entry.rows, mapping.path());
}

void Table::collect_sketches(const std::vector<Shard>& shards) {
  if (layout_.sketch_dims == 0) return;
  const std::size_t bytes = layout_.sketch_dims * layout_.dim * sizeof(float);
  for (const Shard& shard : shards) {
    Sketch sketch = shard.sketch;
    if (!sketches_.empty()) {
      // Bases differ only where tables were joined: then a query is turned once for each.
      const Sketch& last = sketches_.back();
      sketch.basis_number = last.basis_number + (std::memcmp(sketch.basis, last.basis, bytes) == 0 ? 0 : 1);
    }
    sketches_.push_back(sketch);
  }
}

void Table::cut(const std::vector<Shard>& shards) {
  std::uint64_t row = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::uint64_t rows = layout_.shards[i].rows;
    for (std::uint64_t number = 0, start = 0; number < shards[i].tiles; start += tiles_.back().rows, ++number) {
      tiles_.push_back(shards[i].tile(layout_, number, start, row + start));
      if (!sketches_.empty()) tiles_.back().sketch = &sketches_[i];
      tiles_.back().sketch_row = static_cast<std::size_t>(start);
      tiles_.back().has_deleted = tombstones_.count(row + start, tiles_.back().rows) > 0;
    }
    first_rows_.push_back(row);
    row += rows;
  }
}

std::size_t Table::shard_of(const Tile& tile) const {
  const auto after = std::upper_bound(first_rows_.begin(), first_rows_.end(), tile.first_row);
  return static_cast<std::size_t>(after - first_rows_.begin()) - 1;
}

std::string Table::place_of(const Tile& tile, std::size_t row) const {
  const std::size_t shard = shard_of(tile);
  const std::uint64_t in_shard = tile.first_row - first_rows_[shard] + row;
  return mappings_[shard]->path() + ": row " + std::to_string(in_shard) + " (user " + std::to_string(tile.ids[row]) +
         ")";
}

bool Table::prefetch(const Tile& tile) const {
  const Mapping& mapping = *mappings_[shard_of(tile)];
  if (!prefetch_rows(mapping, tile.codes, tile.rows * code_bytes(layout_.codec, layout_.dim))) return false;
  prefetch_rows(mapping, tile.groups, tile.rows * group_bytes(layout_.codec, layout_.dim));
  prefetch_rows(mapping, tile.scales, tile.rows * sizeof(float));
  prefetch_rows(mapping, tile.bias, tile.rows * sizeof(float));
  return true;
}

}  // namespace fllm
