#include "library.hpp"

#include <string>

#include "machine/companion.hpp"
#include "machine/environment.hpp"
#include "status.hpp"

namespace fllm::tensorrt {

namespace {

[[noreturn]] void refuse(const std::string& found) {
  throw Error(
      Status::hardware,
      sentence("the engine 'tensorrt' cannot run: " + found, "",
               "Build libfllm with FLLM_TENSORRT_ROOT (docs/guides/tensorrt.md) and keep TensorRT's libraries on the "
               "loader's path, or use the engine 'cuda' or 'native'"));
}

const PlanDriver& load() {
  const Companion library = load_companion(environment::kTensorRtLibrary, "libfllm_tensorrt.so", kPlanDriverSymbol);
  if (library.symbol == nullptr) refuse(library.failure);
  const auto driver = reinterpret_cast<const PlanDriver* (*)()>(library.symbol);
  if (driver()->version != kPlanDriverVersion) {
    refuse(library.path + " is of version " + std::to_string(driver()->version) + ", this library wants " +
           std::to_string(kPlanDriverVersion));
  }
  return *driver();
}

}  // namespace

const PlanDriver& load_plan_driver() {
  static const PlanDriver& driver = load();
  return driver;
}

}  // namespace fllm::tensorrt
