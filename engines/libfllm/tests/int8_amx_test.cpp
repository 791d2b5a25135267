// The AMX kernel with its tile instructions in software: its packing and indexing, on machines without AMX.
#define FLLM_AMX_EMULATION
#define fill_int8_amx fill_int8_amx_emulated  // beside the library's own
#include "kernels/int8_amx.cpp"
#undef fill_int8_amx

#include "int8_cases.hpp"

int main() {
  fllm::kernels::Kernels kernels = *fllm::kernels::find("scalar");
  fllm::kernels::fill_int8_amx_emulated(kernels);
  kernels.isa = "amx_int8 in software";
  int8_cases::check_level(kernels);
  return check::result();
}
