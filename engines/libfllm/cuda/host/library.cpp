#include "library.hpp"

#include <string>

#include "machine/companion.hpp"
#include "machine/environment.hpp"
#include "machine/fork.hpp"
#include "status.hpp"

namespace fllm::cuda {

namespace {

[[noreturn]] void refuse(const std::string& found) {
  throw Error(Status::hardware,
              sentence("the engine 'cuda' cannot run: " + found, "",
                       "Build fllm-export with FLLM_CUDA=ON (docs/guides/cuda.md), or use the engine 'native'"));
}

const Driver& load() {
  const Companion library = load_companion(environment::kCudaLibrary, "libfllm_cuda.so", kDriverSymbol);
  if (library.symbol == nullptr) refuse(library.failure);
  const auto driver = reinterpret_cast<const Driver* (*)()>(library.symbol);
  if (driver()->version != kDriverVersion) {
    refuse(library.path + " is of version " + std::to_string(driver()->version) + ", this library wants " +
           std::to_string(kDriverVersion));
  }
  return *driver();
}

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
  static const Driver& driver = load();
  return driver;
}

int count_devices(const Driver& driver) {
  int count = 0;
  if (driver.count_devices(&count) != 0) refuse(driver.text());
  if (count == 0) refuse("there is no GPU that this process may use");
  return count;
}

}  // namespace fllm::cuda
