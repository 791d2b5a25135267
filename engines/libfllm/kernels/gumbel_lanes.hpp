// Gumbel noise over lanes of 64 bits: the operations of src/search/gumbel.cpp in the same order, so the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fllm::kernels {

namespace {

constexpr int kPhiloxRounds = 10;
constexpr int kLogTerms = 12;

template <class W>
inline typename W::Double portable_log(typename W::Double x) {
  using Double = typename W::Double;
  // x is a positive normal number: its fields are frexp's answer.
  const auto fraction = W::both(W::bits(x), W::broadcast(std::uint64_t{0x000fffffffffffff}));
  const Double half = W::number(W::either(fraction, W::broadcast(std::uint64_t{0x3fe0000000000000})));
  const auto field = W::either(W::shift_right(W::bits(x), 52), W::broadcast(std::uint64_t{0x4330000000000000}));
  const Double exact = W::subtract(W::number(field), W::broadcast(0x1p52 + 1022));
  const Double limit = W::broadcast(0x1.6a09e667f3bcdp-1);
  const Double mantissa = W::if_less(half, limit, W::add(half, half), half);
  const Double exponent = W::if_less(half, limit, W::subtract(exact, W::broadcast(1.0)), exact);
  const Double one = W::broadcast(1.0);
  const Double s = W::divide(W::subtract(mantissa, one), W::add(mantissa, one));
  const Double square = W::multiply(s, s);
  Double series = W::broadcast(1.0 / (2 * kLogTerms - 1));
#pragma GCC unroll 16
  for (int k = kLogTerms - 2; k >= 0; --k)
    series = W::add(W::multiply(series, square), W::broadcast(1.0 / (2 * k + 1)));
  const Double tail = W::multiply(exponent, W::broadcast(0x1.a39ef35793c76p-33));
  const Double near = W::add(W::multiply(W::add(s, s), series), tail);
  return W::add(W::multiply(exponent, W::broadcast(0x1.62e42feep-1)), near);
}

// The keys of all rounds, one word each.
struct PhiloxKeys {
  std::uint64_t first[kPhiloxRounds], second[kPhiloxRounds];

  explicit PhiloxKeys(std::uint64_t seed) {
    std::uint32_t low = static_cast<std::uint32_t>(seed), high = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round, low += 0x9E3779B9u, high += 0xBB67AE85u) {
      first[round] = low;
      second[round] = high;
    }
  }
};

// 52 random bits for each id. Only the low halves of the words count: the products ignore what is above.
template <class W>
inline typename W::Word random_bits(const PhiloxKeys& keys, typename W::Word ids) {
  auto a = ids, b = W::shift_right(ids, 32), c = W::broadcast(std::uint64_t{0}), d = c;
  const auto first_factor = W::broadcast(std::uint64_t{0xD2511F53u});
  const auto second_factor = W::broadcast(std::uint64_t{0xCD9E8D57u});
#pragma GCC unroll 10
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const auto first = W::multiply_low(a, first_factor), second = W::multiply_low(c, second_factor);
    a = W::exclusive_or(W::shift_right(second, 32), b, W::broadcast(keys.first[round]));
    b = second;
    c = W::exclusive_or(W::shift_right(first, 32), d, W::broadcast(keys.second[round]));
    d = first;
  }
  const auto low = W::both(a, W::broadcast(std::uint64_t{0xffffffff}));
  return W::shift_right(W::either(W::shift_left(b, 32), low), 12);
}

template <class W>
inline typename W::Double uniform_lanes(const PhiloxKeys& keys, typename W::Word ids) {
  const auto above = W::either(random_bits<W>(keys, ids), W::broadcast(std::uint64_t{0x4330000000000000}));
  const auto whole = W::subtract(W::number(above), W::broadcast(0x1p52));
  return W::multiply(W::add(whole, W::broadcast(0.5)), W::broadcast(0x1p-52));
}

template <class W>
inline typename W::Double gumbel_lanes(const PhiloxKeys& keys, typename W::Word ids) {
  return W::negative(portable_log<W>(W::negative(portable_log<W>(uniform_lanes<W>(keys, ids)))));
}

template <class W>
void gumbel(std::uint64_t seed, const std::int64_t* ids, std::size_t n, double* noise) {
  const PhiloxKeys keys(seed);
  std::size_t i = 0;
  for (; i + W::kCount <= n; i += W::kCount) W::store(noise + i, gumbel_lanes<W>(keys, W::load(ids + i)));
  if (i == n) return;
  std::int64_t some[W::kCount];
  double some_noise[W::kCount];
  for (std::size_t l = 0; l < W::kCount; ++l) some[l] = i + l < n ? ids[i + l] : 0;
  W::store(some_noise, gumbel_lanes<W>(keys, W::load(some)));
  for (std::size_t l = 0; i + l < n; ++l) noise[i + l] = some_noise[l];
}

}  // namespace

}  // namespace fllm::kernels
