// What the processor and the operating system together can run.
#pragma once

#include <string>
#include <vector>

namespace fllm {

// Names of the instruction-set levels that may be used here, weakest first. A level is listed only when CPUID
// reports the instructions and XGETBV says that the operating system saves their registers.
std::vector<std::string> cpu_levels();

// Asks the operating system for the AMX tile registers on behalf of the whole process; false when it refuses. Needed
// once before the first AMX instruction, and only where cpu_levels() has "amx_int8".
bool request_amx();

}  // namespace fllm
