// The kernels of rows in bit planes, on every level, against a number at a time: values where the format says they lie,
// and sums that are exact.
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "check.hpp"
#include "guarded.hpp"
#include "kernels/kernels.hpp"
#include "machine/aligned.hpp"
#include "machine/cpu.hpp"

namespace {

using fllm::Aligned;
using namespace fllm::kernels;

std::mt19937 generator(11);

// Blocks of random bits, the values that they stand for, and one item's limbs.
struct Case {
  std::size_t count, bits, groups, dims, rows;
  std::vector<std::uint8_t> codes;
  std::vector<std::int8_t> values, high, low;

  Case(std::size_t count_, std::size_t bits_, std::size_t groups_)
      : count(count_),
        bits(bits_),
        groups(groups_),
        dims(groups * kPlaneDims),
        rows(count * kPlaneRows),
        codes(count * bits * groups * kPlaneBytes / 2),
        values(rows * dims),
        high(dims),
        low(dims) {
    for (std::uint8_t& byte : codes) byte = static_cast<std::uint8_t>(generator());
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t i = 0; i < dims; ++i) values[r * dims + i] = value(r, i);
    }
    for (std::int8_t& number : high) number = static_cast<std::int8_t>(static_cast<int>(generator() % 128) - 64);
    for (std::int8_t& number : low) number = static_cast<std::int8_t>(static_cast<int>(generator() % 128) - 64);
  }

  // docs/reference/format.md: byte 4 r + j of group g holds dimension 16 g + 4 s + j of row r at bits 2 s. Of single
  // bits it holds dimension 32 g + 4 s + j at bit 2 s and dimension 32 g + 16 + 4 s + j at bit 2 s + 1.
  std::int8_t value(std::size_t row, std::size_t dim) const {
    if (bits == 1) {
      const int byte = codes[(row / 16 * groups / 2 + dim / 32) * 64 + 4 * (row % 16) + dim % 4];
      return (byte >> (2 * (dim % 16 / 4) + dim / 16 % 2) & 1) == 1 ? 1 : -1;
    }
    int level = 0;
    const std::size_t planes = bits / 2;
    for (std::size_t plane = 0; plane < planes; ++plane) {
      const std::size_t group = (row / 16 * planes + plane) * groups + dim / 16;
      const int byte = codes[group * 64 + 4 * (row % 16) + dim % 4];
      level = 4 * level + (byte >> (2 * (dim % 16 / 4)) & 3);
    }
    return static_cast<std::int8_t>(bits == 2 ? 2 * level - 3 : 2 * level - 15);
  }

  std::int32_t dot(std::size_t row, const std::vector<std::int8_t>& limb) const {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < dims; ++i) sum += values[row * dims + i] * limb[i];
    return sum;
  }
};

void check_level(const Kernels& kernels, const Case& c) {
  // Behind the codes lies a page that must not be read.
  const Guarded guarded(c.codes.data(), c.codes.size());
  const PlaneBlocks blocks{c.count, c.bits, c.groups, guarded.data()};
  Aligned<std::int8_t> values(c.values.size());
  kernels.planes_unpack(blocks, values.data());
  CHECK(std::equal(c.values.begin(), c.values.end(), values.data()));
  Aligned<std::uint8_t> high(kernels.int8_one_bytes(c.dims)), low(kernels.int8_one_bytes(c.dims));
  kernels.int8_one_pack(c.high.data(), c.dims, high.data());
  kernels.int8_one_pack(c.low.data(), c.dims, low.data());
  Aligned<std::int32_t> high_sums(c.rows), low_sums(c.rows);
  kernels.planes_one(blocks, high.data(), low.data(), high_sums.data(), low_sums.data());
  for (std::size_t r = 0; r < c.rows; ++r) {
    CHECK(high_sums.data()[r] == c.dot(r, c.high));
    CHECK(low_sums.data()[r] == c.dot(r, c.low));
  }
}

void check_levels(const Case& c) {
  for (const auto& level : fllm::cpu_levels()) {
    const Kernels* kernels = find(level.c_str());
    if (kernels != nullptr) check_level(*kernels, c);  // null: the system refuses the tile registers
  }
}

// The largest sums: all values and all limbs at one end.
void check_extremes(std::size_t bits) {
  for (const std::uint8_t byte : {0x00, 0xff}) {
    for (const std::int8_t limb : {-64, 63}) {
      Case c(1, bits, 256);
      std::fill(c.codes.begin(), c.codes.end(), byte);
      const int largest = bits == 1 ? 1 : bits == 2 ? 3 : 15;
      std::fill(c.values.begin(), c.values.end(), static_cast<std::int8_t>(byte == 0 ? -largest : largest));
      std::fill(c.high.begin(), c.high.end(), limb);
      std::fill(c.low.begin(), c.low.end(), static_cast<std::int8_t>(-64));
      check_levels(c);
    }
  }
}

}  // namespace

int main() {
  for (const std::size_t bits : {1, 2, 4}) {
    for (const std::size_t groups : {1, 2, 3, 7, 16, 63}) {
      const std::size_t whole = bits == 1 ? groups + groups % 2 : groups;
      for (const std::size_t count : {1, 2, 3, 4}) check_levels(Case(count, bits, whole));
    }
    check_extremes(bits);
  }
  return check::result();
}
