#include "changes/user_rows.hpp"

#include <algorithm>
#include <numeric>

namespace fllm::changes {

namespace {

constexpr std::size_t kSearchRows = 16;  // of a tile per user: fewer, and reading all its ids costs less

// Calls found(n, row) for each of the ascending `wanted` that the tile holds, by its number among them.
template <typename Found>
void match(const Tile& tile, std::span<const std::int64_t> wanted, Found&& found) {
  const std::int64_t *at = tile.ids, *end = tile.ids + tile.rows;
  const bool searches = wanted.size() * kSearchRows < tile.rows;
  for (std::size_t n = 0; n < wanted.size() && at != end; ++n) {
    if (searches) {
      at = std::lower_bound(at, end, wanted[n]);
    } else {
      while (at != end && *at < wanted[n]) ++at;
    }
    if (at != end && *at == wanted[n]) found(n, static_cast<std::size_t>(at - tile.ids));
  }
}

}  // namespace

std::vector<std::uint64_t> find_users(const Table& table, std::span<const std::int64_t> ids) {
  std::vector<std::size_t> order(ids.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [ids](std::size_t a, std::size_t b) { return ids[a] < ids[b]; });
  std::vector<std::int64_t> ascending(ids.size());
  std::transform(order.begin(), order.end(), ascending.begin(), [ids](std::size_t n) { return ids[n]; });
  std::vector<std::uint64_t> rows(ids.size(), kNoRow);
  for (const Tile& tile : table.tiles()) {
    const auto first = std::lower_bound(ascending.begin(), ascending.end(), tile.ids[0]);
    const auto last = std::upper_bound(first, ascending.end(), tile.ids[tile.rows - 1]);
    const auto before = static_cast<std::size_t>(first - ascending.begin());
    match(tile, {first, last}, [&](std::size_t n, std::size_t row) {
      const std::uint64_t number = tile.first_row + row;
      if (!tile.has_deleted || !table.tombstones().holds(number)) rows[order[before + n]] = number;
    });
  }
  return rows;
}

}  // namespace fllm::changes
