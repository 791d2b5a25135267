#include "library.hpp"

#include "machine/companion.hpp"
#include "machine/environment.hpp"

namespace fllm::tensorrt {

namespace {

constexpr Companion kLibrary = {
    "tensorrt", environment::kTensorRtLibrary, "libfllm_tensorrt.so", kPlanDriverSymbol,
    "Build libfllm with FLLM_TENSORRT_ROOT (docs/guides/tensorrt.md) and keep TensorRT's libraries on the loader's "
    "path, or use the engine 'cuda' or 'native'"};

}  // namespace

const PlanDriver& load_plan_driver() {
  static const PlanDriver& driver = load_driver_of<PlanDriver>(kLibrary, kPlanDriverVersion);
  return driver;
}

}  // namespace fllm::tensorrt
