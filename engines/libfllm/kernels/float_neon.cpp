#include "kernels/kernels.hpp"

namespace fllm::kernels {

void fill_float_neon(Kernels&) {}

}  // namespace fllm::kernels
