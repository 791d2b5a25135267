#include "machine/companion.hpp"

#include <dlfcn.h>

#include "machine/environment.hpp"

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

Companion load_companion(const char* variable, const char* file_name, const char* symbol) {
  Companion found{path_of(variable, file_name), nullptr, ""};
  void* const library = dlopen(found.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const why = dlerror();
    found.failure = why == nullptr ? "no " + found.path : std::string(why);
    return found;
  }
  found.symbol = dlsym(library, symbol);
  if (found.symbol == nullptr) {
    const std::string name = file_name;
    found.failure = found.path + " is not " + name.substr(0, name.find('.'));
  }
  return found;
}

}  // namespace fllm
