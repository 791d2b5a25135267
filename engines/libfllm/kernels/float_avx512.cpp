#include "kernels/kernels.hpp"

namespace fllm::kernels {

void fill_float_avx512(Kernels&) {}

}  // namespace fllm::kernels
