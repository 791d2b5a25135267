// The int8 kernels in plain C++: what runs where nothing better does, and the packing of all levels.
#include <cstring>

#include "kernels/int8_layout.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

std::size_t groups_of(std::size_t items) { return (items + kItemLanes - 1) / kItemLanes; }

std::int32_t offset_of(const std::int8_t* limb, std::size_t dim) {
  std::int32_t sum = 0;
  for (std::size_t j = 0; j < dim; ++j) sum += limb[j];
  return -128 * sum;
}

void one_pack(const std::int8_t* limb, std::size_t dim, void* packed) {
  auto* offsets = static_cast<std::int32_t*>(packed);
  for (std::size_t i = 0; i < kItemLanes; ++i) offsets[i] = offset_of(limb, dim);
  auto* values = static_cast<std::int8_t*>(packed) + kLine;
  std::memset(values, 0, padded_dim(dim));
  std::memcpy(values, limb, dim);
}

std::size_t many_bytes(std::size_t items, std::size_t dim) { return groups_of(items) * group_bytes(dim); }

void many_pack(const std::int8_t* limb, std::size_t items, std::size_t dim, void* packed) {
  std::memset(packed, 0, many_bytes(items, dim));
  for (std::size_t i = 0; i < items; ++i) {
    const std::int8_t* values = limb + i * dim;
    const std::size_t lane = i % kItemLanes;
    std::int8_t* group = static_cast<std::int8_t*>(packed) + i / kItemLanes * group_bytes(dim);
    reinterpret_cast<std::int32_t*>(group)[lane] = offset_of(values, dim);
    std::int8_t* quads = group + kLine + kQuad * lane;
    for (std::size_t j = 0; j < dim; ++j) quads[j / kQuad * kLine + j % kQuad] = values[j];
  }
}

// Lanes are columns of 32-bit words, the offsets' and the quads' alike.
void many_gather(const void* packed, const std::uint32_t* columns, std::size_t count, std::size_t dim, void* out) {
  constexpr std::size_t kWord = sizeof(std::int32_t);
  const std::size_t lines = group_bytes(dim) / kLine;
  if (count % kItemLanes != 0) {
    std::memset(static_cast<std::int8_t*>(out) + count / kItemLanes * group_bytes(dim), 0, group_bytes(dim));
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::int8_t* from = group_of(packed, dim, columns[i] / kItemLanes) + kWord * (columns[i] % kItemLanes);
    std::int8_t* to = static_cast<std::int8_t*>(out) + i / kItemLanes * group_bytes(dim) + kWord * (i % kItemLanes);
    for (std::size_t line = 0; line < lines; ++line) std::memcpy(to + line * kLine, from + line * kLine, kWord);
  }
}

void one(const std::int8_t* codes, std::size_t rows, std::size_t dim, const void* packed_high, const void* packed_low,
         std::int32_t* high, std::int32_t* low) {
  const std::int8_t* high_limb = limb_of(packed_high);
  const std::int8_t* low_limb = limb_of(packed_low);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::int8_t* row = codes + r * dim;
    std::int32_t high_sum = 0;
    std::int32_t low_sum = 0;
    for (std::size_t j = 0; j < dim; ++j) {
      high_sum += row[j] * high_limb[j];
      low_sum += row[j] * low_limb[j];
    }
    high[r] = high_sum;
    low[r] = low_sum;
  }
}

// Sums of one row with a group of items.
void group_sums(const std::int8_t* row, std::size_t dim, const std::int8_t* quads, std::int32_t* sums) {
  std::int32_t totals[kItemLanes] = {};
  for (std::size_t j = 0; j < dim; ++j) {
    const std::int32_t code = row[j];
    const std::int8_t* column = quads + j / kQuad * kLine + j % kQuad;
    for (std::size_t i = 0; i < kItemLanes; ++i) totals[i] += code * column[kQuad * i];
  }
  std::memcpy(sums, totals, sizeof totals);
}

void many(const std::int8_t* codes, std::size_t rows, std::size_t dim, std::size_t items, const void* packed_high,
          const void* packed_low, std::int32_t* high, std::int32_t* low) {
  for (std::size_t group = 0; group < items / kItemLanes; ++group) {
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t place = r * items + group * kItemLanes;
      group_sums(codes + r * dim, dim, group_of(packed_high, dim, group) + kLine, high + place);
      if (packed_low == nullptr) continue;
      group_sums(codes + r * dim, dim, group_of(packed_low, dim, group) + kLine, low + place);
    }
  }
}

}  // namespace

void fill_int8_scalar(Kernels& kernels) {
  kernels.int8_one_bytes = one_item_bytes;
  kernels.int8_one_pack = one_pack;
  kernels.int8_many_bytes = many_bytes;
  kernels.int8_many_pack = many_pack;
  kernels.int8_many_gather = many_gather;
  kernels.int8_one = one;
  kernels.int8_many = many;
}

}  // namespace fllm::kernels
