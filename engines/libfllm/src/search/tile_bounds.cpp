#include "search/tile_bounds.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace fllm {

namespace {

using kernels::kBlockRows;

// By how much the squared length of a direction may exceed 1: far more than it does.
constexpr double kUnitSlack = 0x1p-20;

constexpr std::size_t kFewColumns = 4;  // one at a time they are faster than padded to 16
constexpr std::size_t kLeastSought = 4;

std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// 32 bits that are the smaller, the greater a number is.
std::uint64_t descending(float number) {
  const auto bits = std::bit_cast<std::uint32_t>(number + 0.0f);  // 0, where it is -0
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7fffffffu;
}

}  // namespace

// Tiles whose directions lie one after another.
class TileBounds::Block {
 public:
  Block(const Table& table, std::size_t first, std::size_t last) : first_(first), tiles_(table.tiles().data() + first) {
    const std::size_t dim = table.layout().dim;
    while (count_ < std::min(kBlockRows, last - first) &&
           tiles_[count_].direction == tiles_->direction + count_ * dim) {
      ++count_;
    }
  }

  std::size_t first() const { return first_; }
  std::size_t count() const { return count_; }
  const float* directions() const { return tiles_->direction; }

 private:
  std::size_t first_, count_ = 0;
  const Tile* tiles_;
};

TileBounds::TileBounds(const Table& table, const kernels::Kernels& kernels, const std::vector<Column>& columns,
                       Pool& pool)
    : table_(table),
      kernels_(kernels),
      columns_(columns.size()),
      padded_dim_(round_up(table.layout().dim, kernels::kItemLanes)),
      norms_(columns.size()),
      lost_(columns.size()),
      one_(columns.size() * padded_dim_),
      many_(columns.size() <= kFewColumns ? 0 : round_up(columns.size(), kGroupColumns) * padded_dim_),
      uppers_(table.tiles().size() * columns.size()),
      promises_(uppers_.size()) {
  prepare(columns);
  const std::size_t tiles = table.tiles().size();
  const std::size_t threads = std::min(pool.threads(), (tiles + kBlockRows - 1) / kBlockRows);
  pool.run(threads, [&](std::size_t n) { bound(tiles * n / threads, tiles * (n + 1) / threads); });
}

void TileBounds::prepare(const std::vector<Column>& columns) {
  const std::size_t dim = table_.layout().dim;
  std::fill_n(one_.data(), one_.size(), 0.0f);
  std::fill_n(many_.data(), many_.size(), 0.0f);
  for (std::size_t c = 0; c < columns_; ++c) {
    const float* z = columns[c].search->z + columns[c].item * dim;
    const std::vector<double> values = as_scored(table_.layout().codec, z, dim);
    double squares = 0;
    float* const one = one_.data() + c * padded_dim_;
    for (std::size_t j = 0; j < dim; ++j) {
      one[j] = static_cast<float>(values[j]);
      squares += values[j] * values[j];
    }
    norms_[c] = std::sqrt(squares);
    lost_[c] = (kernels::float_error(dim) + 0x1p-23) * (1 + kUnitSlack) * norms_[c];
    if (columns_ <= kFewColumns) continue;
    const std::size_t lane = c % kGroupColumns, first = c - lane;
    const std::size_t lanes = round_up(std::min(kGroupColumns, columns_ - first), kernels::kItemLanes);
    float* const packed = many_.data() + first * padded_dim_ + lane;
    for (std::size_t j = 0; j < dim; ++j) packed[j * lanes] = one[j];
  }
}

void TileBounds::bound(std::size_t first, std::size_t last) {
  const std::size_t dim = table_.layout().dim;
  const bool in_place = dim == padded_dim_;  // then directions lie in a shard as kernels take them
  Aligned<float> values(in_place ? 0 : kBlockRows * padded_dim_), norms(kBlockRows), sums(kBlockRows * kGroupColumns);
  while (first < last) {
    const Block block(table_, first, last);
    if (!in_place) {
      kernels_.decode_fp32(block.directions(), nullptr, block.count(), dim, values.data(), norms.data());
    }
    bound_block(block, in_place ? block.directions() : values.data(), sums.data());
    first += block.count();
  }
}

void TileBounds::bound_block(const Block& block, const float* values, float* sums) {
  if (columns_ <= kFewColumns) {
    for (std::size_t c = 0; c < columns_; ++c) {
      kernels_.float_one(values, block.count(), padded_dim_, one_.data() + c * padded_dim_, sums);
      for (std::size_t t = 0; t < block.count(); ++t) finish(block.first() + t, c, 1, sums + t);
    }
    return;
  }
  for (std::size_t first = 0; first < columns_; first += kGroupColumns) {
    const std::size_t count = std::min(kGroupColumns, columns_ - first);
    const std::size_t lanes = round_up(count, kernels::kItemLanes);
    kernels_.float_many(values, block.count(), padded_dim_, lanes, many_.data() + first * padded_dim_, sums);
    for (std::size_t t = 0; t < block.count(); ++t) {
      finish(block.first() + t, first, count, sums + t * lanes);
    }
  }
}

void TileBounds::finish(std::size_t tile, std::size_t column, std::size_t count, const float* products) {
  const std::size_t at = tile * columns_ + column;
  const kernels::TileItems items{count, norms_.data() + column, lost_.data() + column};
  kernels_.tile_reach(products, table_.tiles()[tile].extents, items, uppers_.data() + at, promises_.data() + at);
}

std::vector<std::size_t> TileBounds::most_promising(std::size_t column, std::size_t count) const {
  std::vector<std::uint64_t> tiles(table_.tiles().size());
  for (std::size_t t = 0; t < tiles.size(); ++t) tiles[t] = descending(promises_[t * columns_ + column]) << 32 | t;
  const auto end = tiles.begin() + static_cast<std::ptrdiff_t>(count);
  if (count < tiles.size()) std::nth_element(tiles.begin(), end, tiles.end());
  std::sort(tiles.begin(), end);
  std::vector<std::size_t> found(count);
  for (std::size_t i = 0; i < count; ++i) found[i] = static_cast<std::uint32_t>(tiles[i]);
  return found;
}

std::vector<std::size_t> TileBounds::promising(std::size_t column, std::size_t count) const {
  if (best_.empty() || best_[column].size() < count) return most_promising(column, count);
  return {best_[column].begin(), best_[column].begin() + static_cast<std::ptrdiff_t>(count)};
}

std::vector<std::size_t> TileBounds::order(Pool& pool) {
  const std::size_t tiles = table_.tiles().size();
  const std::size_t sought = std::min(tiles, std::max(kLeastSought, tiles / columns_));
  best_.resize(columns_);
  const std::size_t threads = std::min(pool.threads(), columns_);
  pool.run(threads, [&](std::size_t n) {
    for (std::size_t c = n; c < columns_; c += threads) best_[c] = most_promising(c, sought);
  });
  std::vector<std::size_t> order;
  std::vector<bool> taken(tiles, false);
  const auto take = [&](std::size_t tile) {
    if (!taken[tile]) order.push_back(tile);
    taken[tile] = true;
  };
  for (std::size_t rank = 0; rank < sought; ++rank) {
    for (const std::vector<std::size_t>& of_column : best_) take(of_column[rank]);
  }
  for (std::size_t tile = 0; tile < tiles; ++tile) take(tile);
  return order;
}

}  // namespace fllm
