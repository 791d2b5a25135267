// Where the rows of users lie in a table.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "format/table.hpp"

namespace fllm::changes {

inline constexpr std::uint64_t kNoRow = UINT64_MAX;

// The number in scan order of each user's row, kNoRow where the table does not have the user. Ids are different. Reads
// a few ids per tile for each user: nothing has to be kept between changes, and large tables need no memory.
std::vector<std::uint64_t> find_users(const Table& table, std::span<const std::int64_t> ids);

}  // namespace fllm::changes
