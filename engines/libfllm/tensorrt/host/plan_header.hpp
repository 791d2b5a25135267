// What a plan's first bytes say, read before any library loads it. The same layout as
// fllm_export.engines.tensorrt.plan.
#pragma once

#include <cstdint>
#include <string>

#include "tensorrt/plan_driver.hpp"

namespace fllm::tensorrt {

// The command that makes a plan again, for messages.
inline constexpr const char* kRebuild = "Run: fllm-export plan BUNDLE";

// Throws Error unless a plan is one that this library can run on this GPU: Status::hardware for another library,
// version or GPU, Status::bundle for a damaged file. Plans of the full TensorRT say nothing of this in a documented
// place; their own library checks them. `architecture` is such as "sm89".
void check_header(const std::string& path, const std::string& plan, const LibraryFacts& library,
                  const std::string& architecture);

// Such as "tensorrt_rtx 1.7.1.116".
std::string library_name(const LibraryFacts& library);

}  // namespace fllm::tensorrt
