#include "library.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "status.hpp"

namespace fllm::cuda {

namespace {

constexpr const char* kFileName = "libfllm_cuda.so";

std::string library_path() {
  const char* given = std::getenv("FLLM_CUDA_LIBRARY");
  if (given != nullptr && given[0] != '\0') return given;
  Dl_info self;
  if (dladdr(reinterpret_cast<const void*>(&load_driver), &self) == 0 || self.dli_fname == nullptr) return kFileName;
  const std::string path = self.dli_fname;
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? kFileName : path.substr(0, slash + 1) + kFileName;
}

[[noreturn]] void refuse(const std::string& found) {
  throw Error(Status::hardware,
              sentence("the engine 'cuda' cannot run: " + found, "",
                       "Build fllm-export with FLLM_CUDA=ON (docs/cuda.md), or use the engine 'native'"));
}

const Driver& load() {
  const std::string path = library_path();
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const why = dlerror();
    refuse(why == nullptr ? "no " + path : std::string(why));
  }
  const auto driver = reinterpret_cast<const Driver* (*)()>(dlsym(library, kDriverSymbol));
  if (driver == nullptr) refuse(path + " is not libfllm_cuda");
  if (driver()->version != kDriverVersion) {
    refuse(path + " is of version " + std::to_string(driver()->version) + ", this library wants " +
           std::to_string(kDriverVersion));
  }
  return *driver();
}

}  // namespace

const Driver& load_driver() {
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
