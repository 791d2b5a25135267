#include "search/gumbel.hpp"

#include <array>
#include <cmath>

namespace fllm {

namespace {

constexpr int kRounds = 10;
constexpr int kTerms = 12;
// ln 2 as a sum whose first part has trailing zeros, so that exponent * kLn2High is exact.
constexpr double kLn2High = 0x1.62e42feep-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kSqrtHalf = 0x1.6a09e667f3bcdp-1;

constexpr std::array<double, kTerms> artanh_series() {
  std::array<double, kTerms> series{};
  for (int k = 0; k < kTerms; ++k) series[k] = 1.0 / (2 * k + 1);
  return series;
}

constexpr std::array<double, kTerms> kSeries = artanh_series();

// Natural logarithm from IEEE additions, multiplications and divisions in a fixed order, so that no math library can
// make two machines disagree: x = 2^e m, m in [sqrt(1/2), sqrt(2)), log m = 2 artanh((m - 1) / (m + 1)).
double portable_log(double x) {
  int exponent;
  double mantissa = std::frexp(x, &exponent);
  if (mantissa < kSqrtHalf) {
    mantissa *= 2.0;
    --exponent;
  }
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double square = s * s;
  double series = kSeries[kTerms - 1];
  for (int k = kTerms - 2; k >= 0; --k) series = series * square + kSeries[k];
  return exponent * kLn2High + (2.0 * s * series + exponent * kLn2Low);
}

}  // namespace

std::uint64_t philox(std::uint64_t seed, std::uint64_t id) {
  std::uint32_t words[4] = {static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32), 0, 0};
  std::uint32_t keys[2] = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t first = std::uint64_t{words[0]} * 0xD2511F53u;
    const std::uint64_t second = std::uint64_t{words[2]} * 0xCD9E8D57u;
    words[0] = static_cast<std::uint32_t>(second >> 32) ^ words[1] ^ keys[0];
    words[1] = static_cast<std::uint32_t>(second);
    words[2] = static_cast<std::uint32_t>(first >> 32) ^ words[3] ^ keys[1];
    words[3] = static_cast<std::uint32_t>(first);
    keys[0] += 0x9E3779B9u;
    keys[1] += 0xBB67AE85u;
  }
  return (std::uint64_t{words[1]} << 32) | words[0];
}

void gumbel(std::uint64_t seed, const std::int64_t* ids, std::size_t n, double* out) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t bits = philox(seed, static_cast<std::uint64_t>(ids[i])) >> 12;
    const double uniform = (static_cast<double>(bits) + 0.5) * 0x1p-52;
    out[i] = -portable_log(-portable_log(uniform));
  }
}

}  // namespace fllm
