// Which kernels run: the levels of this build and this machine, each table made once.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernels.hpp"
#include "machine/cpu.hpp"
#include "machine/environment.hpp"
#include "status.hpp"

namespace fllm::kernels {

// Each kernel file fills its members of the table.
using Fill = void(Kernels&);
Fill fill_int8_scalar, fill_float_scalar, fill_select_scalar, fill_sketch_scalar, fill_planes_scalar,
    fill_writing_scalar;
Fill fill_int8_avx2, fill_float_avx2, fill_select_avx2, fill_sketch_avx2, fill_planes_avx2, fill_writing_avx2;
Fill fill_int8_avx512, fill_float_avx512, fill_select_avx512, fill_sketch_avx512, fill_planes_avx512,
    fill_writing_avx512;
Fill fill_int8_avx512_vnni, fill_sketch_avx512_vnni, fill_planes_avx512_vnni;
Fill fill_int8_amx;
Fill fill_int8_neon, fill_float_neon, fill_select_neon, fill_sketch_neon, fill_planes_neon, fill_writing_neon;

namespace {

template <Fill*... kFills>
void all(Kernels& kernels) {
  (kFills(kernels), ...);
}

// One instruction set: what it adds to the table of the level before it. Called only where the machine can run it.
struct Level {
  const char* name;
  Fill* fill;
};

// Weakest first, as in cpu_levels().
constexpr Level kLevels[] = {
    {"scalar", all<fill_int8_scalar, fill_float_scalar, fill_select_scalar, fill_sketch_scalar, fill_planes_scalar,
                   fill_writing_scalar>},
#if defined(__x86_64__)
    {"avx2",
     all<fill_int8_avx2, fill_float_avx2, fill_select_avx2, fill_sketch_avx2, fill_planes_avx2, fill_writing_avx2>},
    {"avx512", all<fill_int8_avx512, fill_float_avx512, fill_select_avx512, fill_sketch_avx512, fill_planes_avx512,
                   fill_writing_avx512>},
    {"avx512_vnni", all<fill_int8_avx512_vnni, fill_sketch_avx512_vnni, fill_planes_avx512_vnni>},
    {"amx_int8", all<fill_int8_amx>},
#elif defined(__aarch64__)
    {"neon",
     all<fill_int8_neon, fill_float_neon, fill_select_neon, fill_sketch_neon, fill_planes_neon, fill_writing_neon>},
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
  throw Error(Status::hardware, sentence("FLLM_ISA is '" + isa +
                                             "', and this machine or this build does not support that instruction set",
                                         "one of " + available, "Unset FLLM_ISA to use the best of them"));
}

}  // namespace

const Kernels* find(const char* isa) {
  if (*isa != '\0') return named(isa);
  const std::string asked = environment::text(environment::kIsa);
  return asked.empty() ? best() : &forced(asked);
}

}  // namespace fllm::kernels
