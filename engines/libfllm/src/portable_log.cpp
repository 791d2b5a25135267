#include "portable_log.hpp"

#include <array>
#include <cmath>

namespace fllm {

namespace {

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

}  // namespace

// x = 2^e m, m in [sqrt(1/2), sqrt(2)), log m = 2 artanh((m - 1) / (m + 1)).
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

}  // namespace fllm
