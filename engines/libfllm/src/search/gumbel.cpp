#include "search/gumbel.hpp"

#include "portable_log.hpp"

namespace fllm {

namespace {

constexpr int kRounds = 10;

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
