// The order of the rows of a shard whose tiles hold rows that lie together.
#pragma once

#include <cstddef>
#include <vector>

#include "changes/stored_rows.hpp"

namespace fllm::changes {

// The order in which rows, given by ascending id, are stored: as fllm_export.table.clusters finds it, but from another
// basis of about the same directions. Both are good orders, and a search reads either.
std::vector<std::size_t> tile_order(const StoredRows& rows, const Layout& layout);

}  // namespace fllm::changes
