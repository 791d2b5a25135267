#include "search/filter.hpp"

#include <algorithm>
#include <atomic>
#include <bit>

namespace fllm {

namespace {

std::atomic<std::uint64_t> filters_made{0};

}  // namespace

UserFilter::UserFilter(const Table& table, const std::int64_t* ids, std::size_t n, bool deny)
    : table_(&table), number_(++filters_made), bits_((table.layout().rows + 63) / 64, 0) {
  std::vector<std::int64_t> wanted(ids, ids + n);
  std::sort(wanted.begin(), wanted.end());
  for (const Tile& tile : table.tiles()) {
    const std::int64_t* const end = tile.ids + tile.rows;
    // Ids ascend within a tile, so each search begins where the last one ended, in the tile as in the list.
    auto next = wanted.begin();
    for (const std::int64_t* at = tile.ids; at != end;) {
      next = std::lower_bound(next, wanted.end(), *at);
      if (next == wanted.end()) break;
      at = std::lower_bound(at, end, *next);
      if (at == end || *at != *next) continue;
      const std::uint64_t row = tile.first_row + static_cast<std::uint64_t>(at - tile.ids);
      bits_[row / 64] |= std::uint64_t{1} << (row % 64);
      ++at;
    }
  }
  if (deny) {
    for (std::uint64_t& word : bits_) word = ~word;
    const std::uint64_t rest = table.layout().rows % 64;
    if (rest != 0) bits_.back() &= (std::uint64_t{1} << rest) - 1;
  }
  for (const std::uint64_t word : bits_) allowed_ += static_cast<std::uint64_t>(std::popcount(word));
}

}  // namespace fllm
