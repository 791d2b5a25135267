#include "search/query.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace fllm {

namespace {

constexpr double kLargest = 8127;      // 127 * 64 - 1: both limbs lie in [-64, 63]
constexpr double kRounding = 0x1p-22;  // of a score's float32 arithmetic, relative to the sum of magnitudes

std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// As float32, never below; never 0, so that the error of a row whose norm overflows stays infinite.
float upper_float(double value) {
  return std::max(static_cast<float>(value * (1 + 0x1p-20)), std::numeric_limits<float>::min());
}

}  // namespace

Limbs quantise(const float* z, std::size_t dim) {
  float peak = 0;
  for (std::size_t j = 0; j < dim; ++j) peak = std::max(peak, std::abs(z[j]));
  Limbs limbs{peak > 0 ? static_cast<double>(peak) / kLargest : 1.0, std::vector<std::int8_t>(dim),
              std::vector<std::int8_t>(dim)};
  for (std::size_t j = 0; j < dim; ++j) {
    const auto value = static_cast<int>(std::nearbyint(static_cast<double>(z[j]) / limbs.scale));
    const int high = (value + 64) >> 7;  // floor((value + 64) / 128)
    limbs.high[j] = static_cast<std::int8_t>(high);
    limbs.low[j] = static_cast<std::int8_t>(value - 128 * high);
  }
  return limbs;
}

std::vector<double> as_scored(Codec codec, const float* z, std::size_t dim) {
  std::vector<double> values(z, z + dim);
  if (!facts_of(codec).integer_items) return values;
  const Limbs limbs = quantise(z, dim);
  for (std::size_t j = 0; j < dim; ++j) values[j] = limbs.scale * (128 * limbs.high[j] + limbs.low[j]);
  return values;
}

Queries::Queries(const Layout& layout, const kernels::Kernels& kernels, const std::vector<Column>& columns,
                 bool first_limb_only)
    : kernels_(kernels),
      dim_(layout.dim),
      padded_dim_(round_up(dim_, kernels::kItemLanes)),
      code_dims_(code_dims(layout.codec, dim_)),
      first_limb_only_(first_limb_only),
      scales_(columns.size()),
      float_scales_(round_up(columns.size(), kGroupColumns)),
      errors_(round_up(columns.size(), kGroupColumns)) {
  std::fill_n(float_scales_.data(), float_scales_.size(), 0.0f);
  std::fill_n(errors_.data(), errors_.size(), 0.0f);
  const CodecFacts& codec = facts_of(layout.codec);
  if (codec.decode == nullptr) {
    prepare_int8(columns, codec.codec);
  } else {
    prepare_float(columns, codec.integer_items);
  }
  for (std::size_t i = 0; i < count(); ++i) float_scales_[i] = static_cast<float>(scales_[i]);
}

std::size_t Queries::padded(std::size_t group) const {
  return round_up(std::min(kGroupColumns, count() - group * kGroupColumns), kernels::kItemLanes);
}

QueryGroup Queries::group(std::size_t number) const {
  const std::size_t first = number * kGroupColumns;
  QueryGroup group;
  group.count = std::min(kGroupColumns, count() - first);
  group.items = padded(number);
  std::iota(group.columns, group.columns + group.count, static_cast<std::uint32_t>(first));
  group.scales = float_scales_.data() + first;
  group.errors = errors_.data() + first;
  if (one_float_.size() > 0) {
    group.floats = many_float_.data() + padded_dim_ * first;
  } else {
    group.high = many_high_.data() + number * group_bytes_;
    group.low = first_limb_only_ ? nullptr : many_low_.data() + number * group_bytes_;
  }
  return group;
}

QueryGroup Queries::gather(const std::uint32_t* columns, std::size_t count, GatheredGroup& room) const {
  QueryGroup group;
  group.count = count;
  group.items = round_up(count, kernels::kItemLanes);
  std::copy_n(columns, count, group.columns);
  if (room.scales.size() == 0) room.scales = Aligned<float>(kGroupColumns), room.errors = Aligned<float>(kGroupColumns);
  std::fill_n(room.scales.data(), kGroupColumns, 0.0f);
  std::fill_n(room.errors.data(), kGroupColumns, 0.0f);
  for (std::size_t i = 0; i < count; ++i) {
    room.scales[i] = float_scales_[columns[i]];
    room.errors[i] = errors_[columns[i]];
  }
  group.scales = room.scales.data();
  group.errors = room.errors.data();
  if (one_float_.size() > 0) {
    if (room.floats.size() == 0) room.floats = Aligned<float>(padded_dim_ * kGroupColumns);
    gather_floats(group, room.floats.data());
  } else {
    if (room.high.size() == 0) room.high = Aligned<std::uint8_t>(group_bytes_);
    kernels_.int8_many_gather(many_high_.data(), columns, count, code_dims_, room.high.data());
    group.high = room.high.data();
    if (!first_limb_only_) {
      if (room.low.size() == 0) room.low = Aligned<std::uint8_t>(group_bytes_);
      kernels_.int8_many_gather(many_low_.data(), columns, count, code_dims_, room.low.data());
      group.low = room.low.data();
    }
  }
  return group;
}

void Queries::gather_floats(QueryGroup& group, float* floats) const {
  std::fill_n(floats, padded_dim_ * group.items, 0.0f);
  for (std::size_t i = 0; i < group.count; ++i) {
    const float* query = one_float(group.columns[i]);
    for (std::size_t j = 0; j < dim_; ++j) floats[j * group.items + i] = query[j];
  }
  group.floats = floats;
}

void Queries::prepare_int8(const std::vector<Column>& columns, Codec codec) {
  const std::size_t dims = code_dims_;
  one_bytes_ = round_up(kernels_.int8_one_bytes(dims), kernels::kAlign);
  group_bytes_ = round_up(kernels_.int8_many_bytes(kGroupColumns, dims), kernels::kAlign);
  one_high_ = Aligned<std::uint8_t>(one_bytes_ * count());
  one_low_ = Aligned<std::uint8_t>(one_bytes_ * count());
  many_high_ = Aligned<std::uint8_t>(group_bytes_ * groups());
  many_low_ = Aligned<std::uint8_t>(group_bytes_ * groups());
  std::vector<std::int8_t> high(count() * dims), low(count() * dims);
  for (std::size_t i = 0; i < count(); ++i) {
    const Limbs limbs = quantise(columns[i].search->z + columns[i].item * dim_, dim_);
    scales_[i] = limbs.scale;
    std::copy(limbs.high.begin(), limbs.high.end(), high.begin() + static_cast<std::ptrdiff_t>(i * dims));
    std::copy(limbs.low.begin(), limbs.low.end(), low.begin() + static_cast<std::ptrdiff_t>(i * dims));
    kernels_.int8_one_pack(high.data() + i * dims, dims, one_high_.data() + i * one_bytes_);
    kernels_.int8_one_pack(low.data() + i * dims, dims, one_low_.data() + i * one_bytes_);
    double highs = 0, lows = 0;
    for (std::size_t j = 0; j < dim_; ++j) {
      highs += 128.0 * std::abs(limbs.high[j]);
      lows += std::abs(limbs.low[j]);
    }
    const double left_out = first_limb_only_ ? lows : 0.0;
    errors_[i] = upper_float(limbs.scale * facts_of(codec).largest * (left_out + kRounding * (highs + lows)));
  }
  for (std::size_t group = 0; group < groups(); ++group) {
    const std::size_t first = group * kGroupColumns, items = std::min(kGroupColumns, count() - first);
    kernels_.int8_many_pack(high.data() + first * dims, items, dims, many_high_.data() + group * group_bytes_);
    kernels_.int8_many_pack(low.data() + first * dims, items, dims, many_low_.data() + group * group_bytes_);
  }
}

void Queries::prepare_float(const std::vector<Column>& columns, bool whole_numbers) {
  one_float_ = Aligned<float>(padded_dim_ * count());
  many_float_ = Aligned<float>(padded_dim_ * kGroupColumns * groups());
  std::fill_n(one_float_.data(), one_float_.size(), 0.0f);
  std::fill_n(many_float_.data(), many_float_.size(), 0.0f);
  for (std::size_t i = 0; i < count(); ++i) {
    const float* z = columns[i].search->z + columns[i].item * dim_;
    float* query = one_float_.data() + i * padded_dim_;
    scales_[i] = 1.0;
    std::copy_n(z, dim_, query);
    if (whole_numbers) {
      const Limbs limbs = quantise(z, dim_);
      scales_[i] = limbs.scale;
      for (std::size_t j = 0; j < dim_; ++j) query[j] = 128.0f * limbs.high[j] + limbs.low[j];
    }
    const std::size_t group = i / kGroupColumns, items = padded(group);
    float* packed = many_float_.data() + group * padded_dim_ * kGroupColumns + i % kGroupColumns;
    double squares = 0;
    for (std::size_t j = 0; j < dim_; ++j) {
      packed[j * items] = query[j];
      squares += static_cast<double>(query[j]) * query[j];
    }
    errors_[i] = upper_float(scales_[i] * std::sqrt(squares) * (kernels::float_error(dim_) + kRounding));
  }
}

}  // namespace fllm
