// Every level's int8 kernels that this machine can run.
#include <cstdio>
#include <string>

#include "int8_cases.hpp"
#include "machine/cpu.hpp"

int main() {
  for (const std::string& level : fllm::cpu_levels()) {
    const fllm::kernels::Kernels* kernels = fllm::kernels::find(level.c_str());
    if (kernels == nullptr) continue;  // the operating system refused its registers
    std::printf("checking %s\n", kernels->isa);
    int8_cases::check_level(*kernels);
  }
  return check::result();
}
