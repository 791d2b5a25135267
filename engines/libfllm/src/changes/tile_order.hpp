// The order of the rows of a shard whose tiles hold rows that lie together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "changes/stored_rows.hpp"

namespace fllm::changes {

struct TileOrder {
  std::vector<std::size_t> rows;
  std::vector<std::uint64_t> ends;  // of tiles of uneven size; none where all but the last are full
};

// The order in which rows, given by ascending id, are stored: as fllm_export.table.clusters finds it, but from another
// basis of about the same directions. Both are good orders, and a search reads either. `uneven`: whether tiles end
// where clusters do, where these lie well apart.
TileOrder tile_order(const StoredRows& rows, const Layout& layout, bool uneven);

}  // namespace fllm::changes
