// Rows of any other codec: a block is decoded to float32, whose sums choose the rows that are scored exactly.
#include <algorithm>

#include "machine/aligned.hpp"
#include "search/rows.hpp"

namespace fllm {

namespace {

using kernels::kBlockRows;

// Decoded rows are written and read again at once: they should not leave the nearest cache between.
std::size_t rows_in_cache(std::size_t padded_dim) {
  constexpr std::size_t kValueBytes = 16 << 10;
  const std::size_t rows = kValueBytes / (sizeof(float) * padded_dim) / kernels::kItemLanes * kernels::kItemLanes;
  return std::clamp(rows, kernels::kItemLanes, kBlockRows);
}

class DecodedRows : public Rows {
 public:
  DecodedRows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries)
      : kernels_(kernels),
        queries_(queries),
        decode_(kernels.*facts_of(layout.codec).decode),
        dim_(layout.dim),
        code_bytes_(code_bytes(layout.codec, dim_)),
        group_bytes_(group_bytes(layout.codec, dim_)),
        block_rows_(rows_in_cache(queries.padded_dim())),
        values_(kBlockRows * queries.padded_dim()),
        norms_(kBlockRows),
        errors_(kBlockRows),
        sums_(kBlockRows * kGroupColumns),
        uppers_(kBlockRows) {}

  std::size_t block_rows() const override { return block_rows_; }

  RowBlock take(const Tile& tile, std::size_t first, std::size_t count) override {
    const std::uint8_t* groups = tile.groups == nullptr ? nullptr : tile.groups + first * group_bytes_;
    decode_(tile.codes + first * code_bytes_, groups, count, dim_, values_.data(), norms_.data());
    for (std::size_t r = 0; r < count; ++r) errors_[r] = tile.scales[first + r] * norms_[r];
    const float* bias = tile.bias == nullptr ? nullptr : tile.bias + first;
    return {&tile, first, count, {count, tile.scales + first, errors_.data(), bias}};
  }

  const float* score_one(const RowBlock& rows, std::size_t column, float* scores) override {
    kernels_.float_one(values_.data(), rows.count, queries_.padded_dim(), queries_.one_float(column), sums_.data());
    kernels_.finish_float_one(sums_.data(), rows.block, queries_.float_scale(column), queries_.error(column), scores,
                              uppers_.data());
    return uppers_.data();
  }

  std::size_t select(const RowBlock& rows, const QueryGroup& group, const kernels::Items& items,
                     const kernels::Denominator* denominator, kernels::Hit* out) override {
    kernels_.float_many(values_.data(), rows.count, queries_.padded_dim(), group.items, group.floats, sums_.data());
    return kernels_.select_float_many(sums_.data(), rows.block, items, denominator, out);
  }

  float exact_score(const RowBlock& rows, std::size_t row, std::size_t column) override {
    const float* values = values_.data() + row * queries_.padded_dim();
    const float* query = queries_.one_float(column);
    double sum = 0;
    for (std::size_t j = 0; j < dim_; ++j) sum += static_cast<double>(values[j]) * static_cast<double>(query[j]);
    const double scaled = sum * (static_cast<double>(rows.block.scales[row]) * queries_.scale(column));
    const double bias = rows.block.bias == nullptr ? 0.0 : static_cast<double>(rows.block.bias[row]);
    return static_cast<float>(scaled + bias);
  }

 private:
  const kernels::Kernels& kernels_;
  const Queries& queries_;
  kernels::Decode decode_;
  std::size_t dim_, code_bytes_, group_bytes_, block_rows_;
  Aligned<float> values_, norms_, errors_;  // of the block: [rows, padded dim], [rows], [rows]
  Aligned<float> sums_, uppers_;            // [rows, group columns], [rows]
};

}  // namespace

std::unique_ptr<Rows> make_decoded_rows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries) {
  return std::make_unique<DecodedRows>(layout, kernels, queries);
}

}  // namespace fllm
