// Known answers of Philox and of the noise made from it.
#include "gumbel.hpp"

#include <cmath>
#include <cstdio>

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "FAILED: %s\n", what);
    ++failures;
  }
}

void known_answers() {
  // Random123's kat_vectors: counter 0 and key 0 give 6627e8d5 e169c58d ...
  expect(fllm::philox(0, 0) == 0xe169c58d6627e8d5ull, "philox of zero counter and zero key");
}

void noise_is_standard_gumbel() {
  constexpr std::int64_t n = 200000;
  double sum = 0, squares = 0;
  for (std::int64_t id = 0; id < n; ++id) {
    double noise;
    fllm::gumbel(7, &id, 1, &noise);
    expect(std::isfinite(noise), "noise is finite");
    sum += noise;
    squares += noise * noise;
  }
  const double mean = sum / n, variance = squares / n - mean * mean;
  expect(std::abs(mean - 0.5772156649) < 0.015, "mean is Euler's constant");
  expect(std::abs(variance - 1.6449340668) < 0.04, "variance is pi^2 / 6");
}

}  // namespace

int main() {
  known_answers();
  noise_is_standard_gumbel();
  return failures == 0 ? 0 : 1;
}
