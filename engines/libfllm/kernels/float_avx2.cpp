#include "kernels/kernels.hpp"

namespace fllm::kernels {

void fill_float_avx2(Kernels&) {}

}  // namespace fllm::kernels
