// Rows of int8 codes, which are multiplied as they lie: sums are integers, and scores of single columns exact.
#include <algorithm>

#include "machine/aligned.hpp"
#include "search/rows.hpp"

namespace fllm {

namespace {

using kernels::kBlockRows;

// Memory takes as long as the copying of so many rows.
constexpr std::size_t kRowsAhead = 24;

class Int8Rows : public Rows {
 public:
  Int8Rows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries)
      : kernels_(kernels),
        queries_(queries),
        dim_(layout.dim),
        biased_(layout.bias),
        high_(kBlockRows * kGroupColumns),
        low_(kBlockRows * kGroupColumns),
        gathered_scales_(kBlockRows),
        gathered_bias_(kBlockRows) {}

  std::size_t block_rows() const override { return kBlockRows; }

  RowBlock take(const Tile& tile, std::size_t first, std::size_t count) override {
    const float* bias = tile.bias == nullptr ? nullptr : tile.bias + first;
    return {&tile, first, count, {count, tile.scales + first, tile.scales + first, bias}};
  }

  const float* score_one(const RowBlock& rows, std::size_t column, float* scores) override {
    score(codes(rows), rows.block, column, scores);
    return scores;
  }

  std::size_t select(const RowBlock& rows, const QueryGroup& group, const kernels::Items& items,
                     const kernels::Denominator* denominator, kernels::Hit* out) override {
    std::int32_t* low = group.low == nullptr ? nullptr : low_.data();
    kernels_.int8_many(codes(rows), rows.count, dim_, group.items, group.high, group.low, high_.data(), low);
    return kernels_.select_int8_many(high_.data(), low, rows.block, items, denominator, out);
  }

  float exact_score(const RowBlock& rows, std::size_t row, std::size_t column) override {
    std::int32_t high, low;
    float score;
    kernels_.int8_one(codes(rows) + row * dim_, 1, dim_, queries_.one_high(column), queries_.one_low(column), &high,
                      &low);
    const float* bias = rows.block.bias == nullptr ? nullptr : rows.block.bias + row;
    const kernels::Block one{1, rows.block.scales + row, rows.block.row_errors + row, bias};
    kernels_.finish_int8_one(&high, &low, one, queries_.scale(column), &score);
    return score;
  }

  // Gathers the rows to a block.
  void score_apart(const std::vector<Backlog::Row>& waiting, std::size_t first, std::size_t count, std::size_t column,
                   float* scores) override {
    if (gathered_codes_.size() == 0) gathered_codes_ = Aligned<std::int8_t>(kBlockRows * dim_);
    for (std::size_t r = 0; r < count; ++r) gather(waiting, first + r, r);
    const float* bias = biased_ ? gathered_bias_.data() : nullptr;
    score(gathered_codes_.data(), {count, gathered_scales_.data(), gathered_scales_.data(), bias}, column, scores);
  }

 private:
  const std::int8_t* codes(const RowBlock& rows) const { return codes(*rows.tile, rows.first); }
  const std::int8_t* codes(const Tile& tile, std::size_t row) const {
    return reinterpret_cast<const std::int8_t*>(tile.codes) + row * dim_;
  }

  void score(const std::int8_t* codes, const kernels::Block& block, std::size_t column, float* scores) {
    kernels_.int8_one(codes, block.rows, dim_, queries_.one_high(column), queries_.one_low(column), high_.data(),
                      low_.data());
    kernels_.finish_int8_one(high_.data(), low_.data(), block, queries_.scale(column), scores);
  }

  // Copies a row that waits to place `at` of the gathered block.
  void gather(const std::vector<Backlog::Row>& waiting, std::size_t number, std::size_t at) {
    // The rows lie far apart: some are always on their way while another is copied.
    if (number + kRowsAhead < waiting.size()) {
      const Backlog::Row& later = waiting[number + kRowsAhead];
      const std::int8_t* from = codes(*later.span->tile, later.in_tile());
      for (std::size_t byte = 0; byte < dim_; byte += 64) __builtin_prefetch(from + byte);
      __builtin_prefetch(later.span->tile->scales + later.in_tile());
    }
    const Tile& tile = *waiting[number].span->tile;
    const std::size_t row = waiting[number].in_tile();
    std::copy_n(codes(tile, row), dim_, gathered_codes_.data() + at * dim_);
    gathered_scales_[at] = tile.scales[row];
    if (biased_) gathered_bias_[at] = tile.bias[row];
  }

  const kernels::Kernels& kernels_;
  const Queries& queries_;
  std::size_t dim_;
  bool biased_;
  Aligned<std::int32_t> high_, low_;     // [rows, group columns]
  Aligned<std::int8_t> gathered_codes_;  // [rows, dim], of rows that lie apart; their scales and biases
  Aligned<float> gathered_scales_, gathered_bias_;
};

}  // namespace

std::unique_ptr<Rows> make_int8_rows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries) {
  return std::make_unique<Int8Rows>(layout, kernels, queries);
}

}  // namespace fllm
