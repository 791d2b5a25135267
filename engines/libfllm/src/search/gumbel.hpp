// Counter-based Gumbel noise: one number for each (seed, user id), the same bits on every machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fllm {

// The first two words of Philox4x32-10 (Salmon et al., SC 2011) with the id as counter and the seed as key.
std::uint64_t philox(std::uint64_t seed, std::uint64_t id);

// Writes -log(-log(u)) for each of the n ids, u uniform in the open interval (0, 1).
void gumbel(std::uint64_t seed, const std::int64_t* ids, std::size_t n, double* out);

}  // namespace fllm
