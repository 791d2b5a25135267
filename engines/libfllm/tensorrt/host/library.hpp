// Finds libfllm_tensorrt, which is loaded when a plan is to be run and not before.
#pragma once

#include "tensorrt/plan_driver.hpp"

namespace fllm::tensorrt {

// Loads FLLM_TENSORRT_LIBRARY, or libfllm_tensorrt.so beside libfllm; the library stays loaded. Throws Error
// (Status::hardware) when it, or the TensorRT that it needs, cannot be loaded, or when it is of another version.
const PlanDriver& load_plan_driver();

}  // namespace fllm::tensorrt
