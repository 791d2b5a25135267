// Which kernels run: the levels of this build and this machine, each table made once.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernels.hpp"
#include "machine/cpu.hpp"
#include "status.hpp"

namespace fllm::kernels {

namespace {

// One instruction set: what it adds to the table of the level before it.
struct Level {
  const char* name;
  void (*fill)(Kernels&);
};

// Weakest first, as in cpu_levels().
constexpr Level kLevels[] = {
    {"scalar",
     [](Kernels& kernels) {
       fill_int8_scalar(kernels);
       fill_float_scalar(kernels);
       fill_select_scalar(kernels);
     }},
#if defined(__x86_64__)
    {"avx2",
     [](Kernels& kernels) {
       fill_int8_avx2(kernels);
       fill_float_avx2(kernels);
       fill_select_avx2(kernels);
     }},
    {"avx512",
     [](Kernels& kernels) {
       fill_int8_avx512(kernels);
       fill_float_avx512(kernels);
       fill_select_avx512(kernels);
     }},
    {"avx512_vnni", fill_int8_avx512_vnni},
    {"amx_int8", fill_int8_amx},
#elif defined(__aarch64__)
    {"neon",
     [](Kernels& kernels) {
       fill_int8_neon(kernels);
       fill_float_neon(kernels);
       fill_select_neon(kernels);
     }},
#endif
};

std::vector<Kernels> tables_of(const std::vector<std::string>& names) {
  std::vector<Kernels> tables;
  Kernels kernels{};
  for (const Level& level : kLevels) {
    if (std::find(names.begin(), names.end(), level.name) == names.end()) break;
    level.fill(kernels);
    kernels.isa = level.name;
    tables.push_back(kernels);
  }
  return tables;
}

const std::vector<Kernels>& tables() {
  static const std::vector<Kernels> all = tables_of(cpu_levels());
  return all;
}

// The tile registers are the process's only after it has asked the operating system for them, which is done when the
// level is first taken: the request enlarges every signal frame, a price for those who use it alone.
bool usable(std::string_view isa) {
  if (isa != "amx_int8") return true;
  static const bool permitted = request_amx();
  return permitted;
}

const Kernels* best() {
  const std::vector<Kernels>& all = tables();
  const auto found = std::find_if(all.rbegin(), all.rend(), [](const Kernels& each) { return usable(each.isa); });
  return &*found;  // scalar is always there
}

const Kernels* named(std::string_view isa) {
  const std::vector<Kernels>& all = tables();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Kernels& each) { return each.isa == isa; });
  return found != all.end() && usable(isa) ? &*found : nullptr;
}

const Kernels& forced(const std::string& isa) {
  const Kernels* kernels = named(isa);
  if (kernels != nullptr) return *kernels;
  std::string available;
  for (const Kernels& each : tables()) {
    if (!usable(each.isa)) continue;
    if (!available.empty()) available += ", ";
    available += each.isa;
  }
  throw Error(Status::hardware,
              sentence("FLLM_ISA asks for the instruction set '" + isa + "', which this machine or this build lacks",
                       "one of " + available, "Unset FLLM_ISA to take the best of them"));
}

}  // namespace

const Kernels* find(const char* isa) {
  if (*isa != '\0') return named(isa);
  const char* asked = std::getenv("FLLM_ISA");
  return asked != nullptr && *asked != '\0' ? &forced(asked) : best();
}

}  // namespace fllm::kernels
