#include "search/filter.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <numeric>
#include <span>

namespace fllm {

namespace {

std::atomic<std::uint64_t> filters_made{0};

constexpr unsigned kDigitBits = 11, kDigits = 6;
constexpr std::size_t kDigitValues = std::size_t{1} << kDigitBits;
constexpr std::size_t kFewIds = 4096;  // are sorted by comparison
constexpr std::size_t kSparse = 16;    // fewer ids than one for so many rows are looked for, not the rows

std::size_t digit(std::int64_t id, unsigned number) {
  const std::uint64_t ordered = static_cast<std::uint64_t>(id) ^ (std::uint64_t{1} << 63);
  return (ordered >> (number * kDigitBits)) % kDigitValues;
}

// Ascending, a digit at a time from the lowest; digits that all ids share cost nothing.
void sort(std::vector<std::int64_t>& ids) {
  if (ids.size() < kFewIds) return std::sort(ids.begin(), ids.end());
  std::vector<std::size_t> places(kDigits * kDigitValues);
  for (const std::int64_t id : ids) {
    for (unsigned d = 0; d < kDigits; ++d) ++places[d * kDigitValues + digit(id, d)];
  }
  std::vector<std::int64_t> sorted(ids.size());
  for (unsigned d = 0; d < kDigits; ++d) {
    std::size_t* const place = places.data() + d * kDigitValues;
    if (place[digit(ids[0], d)] == ids.size()) continue;
    std::exclusive_scan(place, place + kDigitValues, place, std::size_t{0});
    for (const std::int64_t id : ids) sorted[place[digit(id, d)]++] = id;
    ids.swap(sorted);
  }
}

// The first of ascending ids [from, end) that is not below `id`; the nearer to `from`, the sooner it is found.
const std::int64_t* next_of(const std::int64_t* from, const std::int64_t* end, std::int64_t id) {
  std::ptrdiff_t reach = 1;
  while (reach < end - from && from[reach] < id) reach *= 2;
  return std::lower_bound(from + reach / 2, from + std::min(reach + 1, end - from), id);
}

// One bit per id from the least to the greatest of a list.
class IdBits {
 public:
  explicit IdBits(std::span<const std::int64_t> ids)
      : least_(*std::min_element(ids.begin(), ids.end())), bits_(span_of(ids) / 64 + 1) {
    for (const std::int64_t id : ids) bits_[offset(id) / 64] |= std::uint64_t{1} << (offset(id) % 64);
  }

  // By how much the greatest id exceeds the least.
  static std::uint64_t span_of(std::span<const std::int64_t> ids) {
    const auto [least, greatest] = std::minmax_element(ids.begin(), ids.end());
    return static_cast<std::uint64_t>(*greatest) - static_cast<std::uint64_t>(*least);
  }

  bool holds(std::int64_t id) const {
    return offset(id) / 64 < bits_.size() && (bits_[offset(id) / 64] >> (offset(id) % 64) & 1u) != 0;
  }

 private:
  std::uint64_t offset(std::int64_t id) const {
    return static_cast<std::uint64_t>(id) - static_cast<std::uint64_t>(least_);
  }

  std::int64_t least_;
  std::vector<std::uint64_t> bits_;
};

// Ascending ids in equal parts of their range, about one id in each.
class IdParts {
 public:
  explicit IdParts(std::span<const std::int64_t> ids) : ids_(ids), range_(offset(ids.back())) {
    const int range_bits = std::bit_width(range_), count_bits = std::bit_width(ids.size());
    shift_ = static_cast<unsigned>(std::max(range_bits - count_bits, 0));
    ends_.resize((range_ >> shift_) + 2);  // at [p + 1] the end of part p
    for (const std::int64_t id : ids) ++ends_[(offset(id) >> shift_) + 1];
    std::partial_sum(ends_.begin(), ends_.end(), ends_.begin());
  }

  bool holds(std::int64_t id) const {
    const std::uint64_t at = offset(id);
    if (at > range_) return false;
    const std::size_t part = at >> shift_;
    return std::binary_search(ids_.data() + ends_[part], ids_.data() + ends_[part + 1], id);
  }

 private:
  std::uint64_t offset(std::int64_t id) const {
    return static_cast<std::uint64_t>(id) - static_cast<std::uint64_t>(ids_.front());
  }

  std::span<const std::int64_t> ids_;
  std::uint64_t range_;
  unsigned shift_;
  std::vector<std::size_t> ends_;
};

}  // namespace

void UserFilter::set(std::uint64_t row) { bits_[row / 64] |= std::uint64_t{1} << (row % 64); }

template <typename Ids>
void UserFilter::look_up(const Table& table, const Ids& wanted) {
  for (const Tile& tile : table.tiles()) {
    for (std::size_t r = 0; r < tile.rows; ++r) {
      if (wanted.holds(tile.ids[r])) set(tile.first_row + r);
    }
  }
}

void UserFilter::find(const Table& table, const std::vector<std::int64_t>& wanted) {
  const std::int64_t* const last = wanted.data() + wanted.size();
  for (const Tile& tile : table.tiles()) {
    const std::int64_t* const end = tile.ids + tile.rows;
    // Ids ascend within a tile, so each search begins where the last one ended, in the tile as in the list.
    const std::int64_t* next = wanted.data();
    for (const std::int64_t* at = tile.ids; at != end;) {
      next = next_of(next, last, *at);
      if (next == last) break;
      at = next_of(at, end, *next);
      if (at == end || *at != *next) continue;
      set(tile.first_row + static_cast<std::uint64_t>(at - tile.ids));
      ++at;
    }
  }
}

UserFilter::UserFilter(const Table& table, const std::int64_t* ids, std::size_t n, bool deny)
    : table_(&table), number_(++filters_made), bits_((table.layout().stored_rows + 63) / 64, 0) {
  const std::span wanted(ids, n);
  const std::uint64_t rows = table.layout().stored_rows;
  const bool many = n > 0 && n >= rows / kSparse;
  // Many ids that lie close together, as numbers from 0 do, need no order.
  if (many && IdBits::span_of(wanted) / 64 < n + rows) {
    look_up(table, IdBits(wanted));
  } else {
    std::vector<std::int64_t> sorted(wanted.begin(), wanted.end());
    sort(sorted);
    if (many) {
      look_up(table, IdParts(sorted));
    } else {
      find(table, sorted);
    }
  }
  if (deny) {
    for (std::uint64_t& word : bits_) word = ~word;
    const std::uint64_t rest = rows % 64;
    if (rest != 0) bits_.back() &= (std::uint64_t{1} << rest) - 1;
  }
  for (std::size_t word = 0; word < bits_.size(); ++word) bits_[word] &= ~table.tombstones().word(64 * word);
  for (const std::uint64_t word : bits_) allowed_ += static_cast<std::uint64_t>(std::popcount(word));
}

}  // namespace fllm
