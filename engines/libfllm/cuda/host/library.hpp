// Finds libfllm_cuda, which is loaded when a GPU is asked for and not before.
#pragma once

#include "cuda/driver.hpp"

namespace fllm::cuda {

// Loads FLLM_CUDA_LIBRARY, or libfllm_cuda.so beside libfllm; the library stays loaded. Throws Error (Status::hardware)
// when it cannot be loaded or is of another version.
const Driver& load_driver();

// Devices that the process sees, at least 1. Throws Error (Status::hardware) when there are none.
int count_devices(const Driver& driver);

}  // namespace fllm::cuda
