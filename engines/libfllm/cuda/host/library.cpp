#include "library.hpp"

#include <string>

#include "machine/companion.hpp"
#include "machine/environment.hpp"
#include "machine/fork.hpp"
#include "status.hpp"

namespace fllm::cuda {

namespace {

constexpr Companion kLibrary = {
    "cuda", environment::kCudaLibrary, "libfllm_cuda.so", kDriverSymbol,
    "Build fllm-export with FLLM_CUDA=ON (docs/guides/cuda.md), or use the engine 'native'"};

}  // namespace

const Driver& load_driver() {
  static const std::uint64_t process = process_number();
  if (process != process_number()) {
    throw Error(Status::hardware,
                sentence("the process was forked after its parent had used a GPU, and CUDA works in the "
                         "parent alone",
                         "tables on GPUs that are opened after the fork, in the child",
                         "Start other processes before, or by spawn"));
  }
  static const Driver& driver = load_driver_of<Driver>(kLibrary, kDriverVersion);
  return driver;
}

int count_devices(const Driver& driver) {
  int count = 0;
  if (driver.count_devices(&count) != 0) refuse(kLibrary, driver.text());
  if (count == 0) refuse(kLibrary, "there is no GPU that this process may use");
  return count;
}

}  // namespace fllm::cuda
