// Which sketch kernel goes with which level.
#include <string_view>

#include "kernels/sketch.hpp"

namespace fllm::kernels {

namespace {

struct Level {
  std::string_view name;
  SketchBounds bounds;
};

constexpr Level kLevels[] = {
    {"scalar", sketch_bounds_scalar},
#if defined(__x86_64__)
    {"avx2", sketch_bounds_avx2},
    {"avx512", sketch_bounds_avx512},
    {"avx512_vnni", sketch_bounds_avx512_vnni},
    {"amx_int8", sketch_bounds_avx512_vnni},
#elif defined(__aarch64__)
    {"neon", sketch_bounds_neon},
#endif
};

}  // namespace

SketchBounds find_sketch_bounds(const char* isa) {
  for (const Level& level : kLevels) {
    if (level.name == isa) return level.bounds;
  }
  return nullptr;
}

}  // namespace fllm::kernels
