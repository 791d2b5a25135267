// What the processor and the operating system together can run.
#pragma once

#include <string>
#include <vector>

namespace fllm {

// Names of the instruction-set levels that may be used here, weakest first. A level is listed only when CPUID
// reports the instructions and XGETBV says that the operating system saves their registers.
std::vector<std::string> cpu_levels();

}  // namespace fllm
