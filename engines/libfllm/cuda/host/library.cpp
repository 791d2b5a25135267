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
    throw Error(
        Status::hardware,
        sentence("the process was forked after its parent had used a GPU, and CUDA does not work in "
                 "such a child",
                 "no use of a GPU before the fork", "Fork before the first use of a GPU, or start processes by spawn"));
  }
  static const Driver& driver = load_driver_of<Driver>(kLibrary, kDriverVersion);
  return driver;
}

int count_devices(const Driver& driver) {
  int count = 0;
  if (driver.count_devices(&count) != 0) refuse(kLibrary, driver.text());
  if (count == 0) refuse(kLibrary, "no GPU is available to this process");
  return count;
}

}  // namespace fllm::cuda
