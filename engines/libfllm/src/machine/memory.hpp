// How much memory may still be taken.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace fllm {

// Bytes that can be taken before the system, or the control group of this process, starts to swap or to kill. None
// where the system does not say. `root` is put before /proc and /sys.
std::optional<std::uint64_t> available_memory(const std::string& root = "");

// Throws Error (Status::memory) when less than `bytes` are available for `what`.
void require_memory(std::uint64_t bytes, const std::string& what);

}  // namespace fllm
