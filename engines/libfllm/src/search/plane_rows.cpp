// Rows in bit planes (int1, int2, int4row): one item is multiplied with the planes as they lie, for many a block is
// unpacked to int8 once. Sums are integers, and scores of single columns exact.
#include "machine/aligned.hpp"
#include "search/rows.hpp"

namespace fllm {

namespace {

using kernels::kBlockRows;
using kernels::kPlaneRows;

class PlaneRows : public Rows {
 public:
  PlaneRows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries)
      : kernels_(kernels),
        queries_(queries),
        bits_(facts_of(layout.codec).bits),
        dims_(code_dims(layout.codec, layout.dim)),
        row_bytes_(code_bytes(layout.codec, layout.dim)),
        values_(kBlockRows * dims_),
        high_(kBlockRows * kGroupColumns),
        low_(kBlockRows * kGroupColumns) {}

  std::size_t block_rows() const override { return kBlockRows; }

  RowBlock take(const Tile& tile, std::size_t first, std::size_t count) override {
    unpacked_ = false;
    const float* bias = tile.bias == nullptr ? nullptr : tile.bias + first;
    return {&tile, first, count, {count, tile.scales + first, tile.scales + first, bias}};
  }

  const float* score_one(const RowBlock& rows, std::size_t column, float* scores) override {
    kernels_.planes_one(blocks(rows), queries_.one_high(column), queries_.one_low(column), high_.data(), low_.data());
    const std::size_t lane = first_lane(rows);
    kernels_.finish_int8_one(high_.data() + lane, low_.data() + lane, rows.block, queries_.scale(column), scores);
    return scores;
  }

  std::size_t select(const RowBlock& rows, const QueryGroup& group, const kernels::Items& items,
                     const kernels::Denominator* denominator, kernels::Hit* out) override {
    std::int32_t* low = group.low == nullptr ? nullptr : low_.data();
    kernels_.int8_many(values(rows), rows.count, dims_, group.items, group.high, group.low, high_.data(), low);
    return kernels_.select_int8_many(high_.data(), low, rows.block, items, denominator, out);
  }

  float exact_score(const RowBlock& rows, std::size_t row, std::size_t column) override {
    std::int32_t high, low;
    float score;
    kernels_.int8_one(values(rows) + row * dims_, 1, dims_, queries_.one_high(column), queries_.one_low(column), &high,
                      &low);
    const float* bias = rows.block.bias == nullptr ? nullptr : rows.block.bias + row;
    const kernels::Block one{1, rows.block.scales + row, rows.block.row_errors + row, bias};
    kernels_.finish_int8_one(&high, &low, one, queries_.scale(column), &score);
    return score;
  }

 private:
  // Tiles and spans begin with a block of planes; a single row may lie anywhere in one.
  static std::size_t first_lane(const RowBlock& rows) { return rows.first % kPlaneRows; }

  kernels::PlaneBlocks blocks(const RowBlock& rows) const {
    const std::size_t lane = first_lane(rows);
    const std::uint8_t* codes = rows.tile->codes + (rows.first - lane) * row_bytes_;
    return {(lane + rows.count + kPlaneRows - 1) / kPlaneRows, bits_, dims_ / kernels::kPlaneDims, codes};
  }

  // The values of the block's rows, int8 [rows, dims].
  const std::int8_t* values(const RowBlock& rows) {
    if (!unpacked_) kernels_.planes_unpack(blocks(rows), values_.data());
    unpacked_ = true;
    return values_.data() + first_lane(rows) * dims_;
  }

  const kernels::Kernels& kernels_;
  const Queries& queries_;
  std::size_t bits_, dims_, row_bytes_;
  Aligned<std::int8_t> values_;       // [rows, dims]
  bool unpacked_ = false;             // whether they are those of the block
  Aligned<std::int32_t> high_, low_;  // [rows, group columns]
};

}  // namespace

std::unique_ptr<Rows> make_plane_rows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries) {
  return std::make_unique<PlaneRows>(layout, kernels, queries);
}

}  // namespace fllm
