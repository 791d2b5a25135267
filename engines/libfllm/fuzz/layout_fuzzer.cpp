// A table.json of any bytes is refused by an Error, or is a layout that keeps its promises.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "format/table.hpp"
#include "status.hpp"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const fllm::Layout layout = fllm::Layout::parse({reinterpret_cast<const char*>(data), size}, "users/table.json");
    require(layout.dim > 0 && layout.tile_rows > 0 && layout.generation > 0);
    std::uint64_t rows = 0;
    for (const fllm::ShardEntry& shard : layout.shards) {
      require(shard.rows > 0 && shard.name.find('/') == std::string::npos && !shard.name.empty());
      rows += shard.rows;
    }
    require(rows == layout.stored_rows && layout.rows > 0);
    require(layout.tombstones.rows <= rows && layout.tombstones.deleted <= layout.tombstones.rows);
    require(layout.rows + layout.tombstones.deleted == rows);
  } catch (const fllm::Error& error) {
    require(error.status() == fllm::Status::bundle);
  }
  return 0;
}
