// How many threads to use where the caller names a number, or none.
#pragma once

#include <cstddef>

namespace fllm {

// `asked`, or for 0: FLLM_NUM_THREADS, or else the CPUs that this process may run on.
// Throws Error(Status::usage): it is too large, or the variable holds no such number.
std::size_t thread_count(std::size_t asked);

}  // namespace fllm
