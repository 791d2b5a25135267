// tensor_core.cuh on the CPU. Copies are made when they are waited for and not before.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <functional>
#include <map>

#include "cuda/emulation/cuda.hpp"

namespace fllm::cuda {

namespace emulation {

struct Fragments {
  unsigned a[4], b[2];
};

inline int byte_of(unsigned word, unsigned number) { return static_cast<std::int8_t>(word >> (8 * number)); }

// a[row, k .. k + 3] and b[k .. k + 3, column], k a multiple of 4.
inline unsigned word_of_a(const Fragments* all, unsigned row, unsigned k) {
  return all[row % 8 * 4 + k / 4 % 4].a[row / 8 + 2 * (k / 16)];
}
inline unsigned word_of_b(const Fragments* all, unsigned k, unsigned column) {
  return all[column * 4 + k / 4 % 4].b[k / 16];
}

inline int product(const Fragments* all, unsigned row, unsigned column) {
  int sum = 0;
  for (unsigned k = 0; k < 32; k += 4) {
    const unsigned a = word_of_a(all, row, k), b = word_of_b(all, k, column);
    for (unsigned byte = 0; byte < 4; ++byte) sum += byte_of(a, byte) * byte_of(b, byte);
  }
  return sum;
}

inline float half_value(unsigned bits) {
  const auto exponent = static_cast<int>(bits >> 10 & 31u);
  const auto mantissa = static_cast<float>(bits & 1023u);
  const float magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024.0f + mantissa, exponent - 25);
  return bits & 0x8000u ? -magnitude : magnitude;
}

inline const std::array<float, 65536> half_values = [] {
  std::array<float, 65536> values;
  for (unsigned bits = 0; bits < values.size(); ++bits) values[bits] = half_value(bits);
  return values;
}();

// Of a number that halves have as a normal one, or zero.
inline unsigned half_of(float value) {
  const std::uint32_t bits = from_bits<std::uint32_t>(fllm::cuda::emulation::bits(value));
  return value == 0.0f ? 0u : (bits >> 16 & 0x8000u) | ((bits >> 13 & 0x3FFFFu) - (112u << 10));
}

// The sixteen products and the sum, all cut off, as is what they add up to, below a last place one digit shorter than
// single floats have: harsher than a GPU, and within what host/item_error.hpp allows for.
inline float cut_sum(float sum, const float (&products)[16]) {
  float largest = std::abs(sum);
  for (const float product : products) largest = std::max(largest, std::abs(product));
  if (largest == 0.0f) return 0.0f;
  const std::uint32_t exponent = from_bits<std::uint32_t>(bits(largest)) >> 23;
  const auto power = [](std::uint32_t biased) { return from_bits<float>(std::uint64_t{biased} << 23); };
  const float places = power(127 + 127 + 22 - exponent);  // 2^22 over the power of two that `largest` begins with
  auto all = static_cast<std::int64_t>(sum * places);
  for (const float product : products) all += static_cast<std::int64_t>(product * places);
  std::int64_t last = 1;
  while (std::abs(all) / last >= 1 << 23) last *= 2;
  return static_cast<float>(all - all % last) * power(exponent - 22);
}

// Row g and column g of halves, as the lanes have them.
inline void halves_of_a(const Fragments* all, unsigned row, float (&halves)[16]) {
  for (unsigned k = 0; k < 16; ++k) {
    const unsigned word = all[row % 8 * 4 + k / 2 % 4].a[row / 8 + 2 * (k / 8)];
    halves[k] = half_values[word >> 16 * (k % 2) & 0xFFFFu];
  }
}
inline void halves_of_b(const Fragments* all, unsigned column, float (&halves)[16]) {
  for (unsigned k = 0; k < 16; ++k) {
    const unsigned word = all[column * 4 + k / 2 % 4].b[k / 8];
    halves[k] = half_values[word >> 16 * (k % 2) & 0xFFFFu];
  }
}

// A thread's asynchronous copies.
using Group = std::deque<std::function<void()>>;
struct Copies {
  Group open;
  std::deque<Group> ended;
};
inline std::map<std::pair<unsigned, unsigned>, Copies> copies;  // by block and thread
inline Copies& own_copies() { return copies[{blockIdx.x, Block::current().thread()}]; }

}  // namespace emulation

inline void multiply_tile(int (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  emulation::Block& block = emulation::Block::current();
  const unsigned row = block.lane() / 4, column = block.lane() % 4 * 2;
  const emulation::Fragments own{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  block.share(own, [&](const emulation::Fragments* all) {
    for (unsigned i = 0; i < 4; ++i) sums[i] += emulation::product(all, row + 8 * (i / 2), column + i % 2);
  });
}

inline void multiply_tile(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  emulation::Block& block = emulation::Block::current();
  const unsigned row = block.lane() / 4, column = block.lane() % 4 * 2;
  const emulation::Fragments own{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  block.share(own, [&](const emulation::Fragments* all) {
    float rows[2][16], columns[2][16], products[16];
    for (unsigned i = 0; i < 2; ++i) emulation::halves_of_a(all, row + 8 * i, rows[i]);
    for (unsigned i = 0; i < 2; ++i) emulation::halves_of_b(all, column + i, columns[i]);
    for (unsigned i = 0; i < 4; ++i) {
      for (unsigned k = 0; k < 16; ++k) products[k] = rows[i / 2][k] * columns[i % 2][k];
      sums[i] = emulation::cut_sum(sums[i], products);
    }
  });
}

// Of numbers whose difference halves have, as a normal one or zero.
inline unsigned subtract_halves(unsigned a, unsigned b) {
  const auto part = [&](unsigned shift) {
    const float left = emulation::half_values[a >> shift & 0xFFFFu];
    return emulation::half_of(left - emulation::half_values[b >> shift & 0xFFFFu]) << shift;
  };
  return part(0) | part(16);
}

inline void load_matrices(unsigned (&parts)[4], const void* row) {
  emulation::Block& block = emulation::Block::current();
  block.share(row, [&](const void* const* rows) {
    for (unsigned i = 0; i < 4; ++i) {
      const void* const from = rows[8 * i + block.lane() / 4];
      std::memcpy(&parts[i], static_cast<const unsigned char*>(from) + block.lane() % 4 * 4, 4);
    }
  });
}

inline float half_bits_to_float(unsigned bits) { return emulation::half_values[bits & 0xFFFFu]; }

inline float fast_exp2(float x) { return std::exp2(x); }

inline void copy_16(void* to, const void* from, bool there) {
  emulation::own_copies().open.push_back([=] {
    if (there) {
      std::memcpy(to, from, 16);
    } else {
      std::memset(to, 0, 16);
    }
  });
}

inline void copy_4(void* to, const void* from) {
  emulation::own_copies().open.push_back([=] { std::memcpy(to, from, 4); });
}

inline void end_group() {
  emulation::Copies& copies = emulation::own_copies();
  copies.ended.push_back(std::move(copies.open));
  copies.open.clear();
}

template <int kLeft>
void wait_groups() {
  emulation::Copies& copies = emulation::own_copies();
  while (copies.ended.size() > kLeft) {
    for (const std::function<void()>& copy : copies.ended.front()) copy();
    copies.ended.pop_front();
  }
}

}  // namespace fllm::cuda
