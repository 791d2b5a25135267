#include "kernels/kernels.hpp"

namespace fllm::kernels {

void fill_select_neon(Kernels&) {}

}  // namespace fllm::kernels
