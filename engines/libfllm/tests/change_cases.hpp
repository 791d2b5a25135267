// A table that changes are made to, and what a reader finds in it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "changes/living_table.hpp"
#include "format/table.hpp"
#include "shard_writer.hpp"
#include "status.hpp"

namespace cases {

using fllm::changes::Change;
using fllm::changes::GivenRows;
using fllm::changes::LivingTable;

constexpr std::uint64_t kDim = 16;

// Tests that cut no real power need no real syncs, which take most of the time.
class QuickDisk : public fllm::changes::Disk {
 public:
  int sync(int) override { return 0; }
  int sync_directory(const std::string&) override { return 0; }
};

// By user the codes and the scale of the row.
using Users = std::map<std::int64_t, std::string>;

inline Users users_of(const std::string& directory) {
  const fllm::Table table(directory);
  if (table.layout().recovered) throw fllm::Error(fllm::Status::bundle, "table.json cannot be read");
  Users found;
  for (const fllm::Tile& tile : table.tiles()) {
    for (std::size_t row = 0; row < tile.rows; ++row) {
      if (table.tombstones().holds(tile.first_row + row)) continue;
      std::string bytes(reinterpret_cast<const char*>(tile.codes) + row * kDim, kDim);
      bytes += std::to_string(tile.scales[row]);
      if (!found.emplace(tile.ids[row], bytes).second) {
        throw fllm::Error(fllm::Status::bundle, "user " + std::to_string(tile.ids[row]) + " is there twice");
      }
    }
  }
  return found;
}

struct Rows {
  Rows(std::int64_t first_id, std::size_t n) : numbers(n * kDim), ids(n) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = static_cast<float>((static_cast<std::size_t>(first_id) + i * 37) % 101) - 50;
    }
    for (std::size_t i = 0; i < n; ++i) ids[i] = first_id + 3 * static_cast<std::int64_t>(i);
  }

  GivenRows given() const { return {numbers.data(), nullptr, ids.data(), ids.size()}; }

  std::vector<float> numbers;
  std::vector<std::int64_t> ids;
};

// A large and a small shard, deleted rows in one of them. Users are 0, 3, 6 and so on.
inline void write_table(const writer::Directory& directory) {
  writer::write_table(directory, {40}, kDim, 64);
  QuickDisk disk;
  LivingTable table(directory.path(), disk);
  table.remove(std::vector<std::int64_t>{0, 21});
  table.append(Rows(120, 8).given(), kDim);
}

struct Case {
  const char* name;
  std::function<Change(LivingTable&)> make;
};

inline const std::vector<Case>& all() {
  static const std::vector<Case> kAll{
      {"delete", [](LivingTable& table) { return table.remove(std::vector<std::int64_t>{3, 6, 123}); }},
      {"append", [](LivingTable& table) { return table.append(Rows(150, 10).given(), kDim); }},
      {"update", [](LivingTable& table) { return table.update(Rows(60, 10).given(), kDim); }}};
  return kAll;
}

}  // namespace cases
