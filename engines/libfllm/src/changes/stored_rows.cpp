#include "changes/stored_rows.hpp"

#include <algorithm>
#include <cstring>

#include "write/parallel.hpp"

namespace fllm::changes {

namespace {

constexpr std::size_t kLane = kernels::kPlaneBytes / kernels::kPlaneRows;  // bytes of a row in a group of a plane

const kernels::Kernels& kernels_here() { return *kernels::find(""); }

}  // namespace

void StoredRows::grow(std::size_t rows) {
  const std::size_t n = size() + rows;
  codes_.resize(n * code_bytes(layout_->codec, layout_->dim));
  groups_.resize(n * group_bytes(layout_->codec, layout_->dim));
  scales_.resize(n);
  if (layout_->bias) bias_.resize(n);
  ids_.resize(n);
}

writing::Stored StoredRows::stored() { return {codes_.data(), groups_.data(), scales_.data()}; }

void StoredRows::encode(const GivenRows& given) {
  const std::size_t first = size(), dim = layout_->dim;
  grow(given.n);
  std::copy(given.ids, given.ids + given.n, ids_.begin() + static_cast<std::ptrdiff_t>(first));
  if (layout_->bias) std::copy(given.bias, given.bias + given.n, bias_.begin() + static_cast<std::ptrdiff_t>(first));
  writing::for_parts(given.n, writing::rows_of_part(dim), [&](std::size_t start, std::size_t stop) {
    writing::encode(kernels_here(), layout_->codec, given.rows + start * dim, stop - start, dim,
                    writing::from_row(layout_->codec, stored(), first + start, dim));
  });
}

void StoredRows::copy_codes(const Tile& tile, std::size_t from, std::size_t to) {
  const std::size_t bytes = code_bytes(layout_->codec, layout_->dim);
  std::uint8_t* out = codes_.data() + to * bytes;
  if (facts_of(layout_->codec).planes == 0) {
    std::memcpy(out, tile.codes + from * bytes, bytes);
    return;
  }
  const std::uint8_t* lane =
      tile.codes + from / kernels::kPlaneRows * kernels::kPlaneRows * bytes + from % kernels::kPlaneRows * kLane;
  for (std::size_t at = 0; at < bytes; at += kLane) std::memcpy(out + at, lane + at * kernels::kPlaneRows, kLane);
}

void StoredRows::take(const Tile& tile, const Marks& marks) {
  const std::size_t groups = group_bytes(layout_->codec, layout_->dim);
  std::size_t to = size();
  grow(tile.rows);
  for (std::size_t row = 0; row < tile.rows; ++row) {
    if (marks.holds(tile.first_row + row)) continue;
    copy_codes(tile, row, to);
    if (groups > 0) std::memcpy(groups_.data() + to * groups, tile.groups + row * groups, groups);
    scales_[to] = tile.scales[row];
    if (layout_->bias) bias_[to] = tile.bias[row];
    ids_[to++] = tile.ids[row];
  }
  ids_.resize(to);
  grow(0);
}

void StoredRows::copy(const StoredRows& others, std::size_t from, std::size_t to) {
  const std::size_t bytes = code_bytes(layout_->codec, layout_->dim),
                    groups = group_bytes(layout_->codec, layout_->dim);
  std::memcpy(codes_.data() + to * bytes, others.codes_.data() + from * bytes, bytes);
  if (groups > 0) std::memcpy(groups_.data() + to * groups, others.groups_.data() + from * groups, groups);
  scales_[to] = others.scales_[from];
  if (layout_->bias) bias_[to] = others.bias_[from];
  ids_[to] = others.ids_[from];
}

void StoredRows::take(const StoredRows& others, std::size_t start, std::size_t stop) {
  const std::size_t first = size();
  grow(stop - start);
  for (std::size_t row = start; row < stop; ++row) copy(others, row, first + row - start);
}

StoredRows StoredRows::ordered(const std::vector<std::size_t>& order) const {
  StoredRows next(*layout_);
  next.grow(order.size());
  for (std::size_t row = 0; row < order.size(); ++row) next.copy(*this, order[row], row);
  return next;
}

std::vector<float> StoredRows::decoded(std::size_t start, std::size_t stop) const {
  const std::size_t dim = layout_->dim;
  std::vector<float> rows((stop - start) * dim);
  const writing::Stored all{const_cast<std::uint8_t*>(codes_.data()), const_cast<std::uint8_t*>(groups_.data()),
                            const_cast<float*>(scales_.data())};
  writing::decode(kernels_here(), layout_->codec, writing::from_row(layout_->codec, all, start, dim), stop - start, dim,
                  rows.data());
  return rows;
}

std::vector<std::uint8_t> StoredRows::codes() const {
  if (facts_of(layout_->codec).planes == 0) return codes_;
  const std::size_t bytes = code_bytes(layout_->codec, layout_->dim);
  const std::size_t blocks = (size() + kernels::kPlaneRows - 1) / kernels::kPlaneRows;
  std::vector<std::uint8_t> tensor(blocks * kernels::kPlaneRows * bytes);  // zeros fill the last block up
  for (std::size_t row = 0; row < size(); ++row) {
    std::uint8_t* lane =
        tensor.data() + row / kernels::kPlaneRows * kernels::kPlaneRows * bytes + row % kernels::kPlaneRows * kLane;
    const std::uint8_t* code = codes_.data() + row * bytes;
    for (std::size_t at = 0; at < bytes; at += kLane) std::memcpy(lane + at * kernels::kPlaneRows, code + at, kLane);
  }
  return tensor;
}

}  // namespace fllm::changes
