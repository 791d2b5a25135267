#include "machine/companion.hpp"

#include <dlfcn.h>

#include "machine/environment.hpp"
#include "status.hpp"

namespace fllm {

namespace {

std::string path_of(const char* variable, const char* file_name) {
  const std::string given = environment::text(variable);
  if (!given.empty()) return given;
  Dl_info self;
  if (dladdr(reinterpret_cast<const void*>(&load_companion), &self) == 0 || self.dli_fname == nullptr) return file_name;
  const std::string path = self.dli_fname;
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? file_name : path.substr(0, slash + 1) + file_name;
}

}  // namespace

void refuse(const Companion& wanted, const std::string& found) {
  throw Error(Status::hardware,
              sentence(std::string("the engine '") + wanted.engine + "' cannot run: " + found, "", wanted.fix));
}

const void* load_companion(const Companion& wanted) {
  const std::string path = path_of(wanted.variable, wanted.file_name);
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const why = dlerror();
    refuse(wanted, why == nullptr ? "no " + path : std::string(why));
  }
  void* const symbol = dlsym(library, wanted.symbol);
  if (symbol == nullptr) {
    const std::string name = wanted.file_name;
    refuse(wanted, path + " is not " + name.substr(0, name.find('.')));
  }
  return reinterpret_cast<const void* (*)()>(symbol)();
}

}  // namespace fllm
