// How many items a scan takes at once, by the shared memory that a block of the GPU may have.
#include "check.hpp"
#include "cuda/launch.cuh"

namespace {

using fllm::cuda::Codes;

// GPUs differ in the shared memory that a block may have: 99 KiB are the least, of sm_86, sm_89 and sm_120.
void as_many_go_together_as_there_is_room_for() {
  constexpr std::size_t kLeast = 99 << 10, kOfSm80 = 163 << 10, kOfSm90 = 227 << 10;
  for (const Codes kind : {Codes::int8, Codes::fp8, Codes::int2, Codes::int4row}) {
    const auto most = [&](std::uint32_t dim, std::size_t bytes) {
      return fllm::cuda::most_items_together(kind, dim, bytes);
    };
    CHECK(most(64, kLeast) == 128 && most(256, kOfSm80) == 128 && most(512, kOfSm90) == 128);
    CHECK(most(256, kLeast) == (kind == Codes::int2 ? 128u : 64u));  // the narrower the rows, the more limbs
    CHECK(most(1024, kOfSm80) >= 32 && most(1024, kLeast) == 0);
    CHECK(most(1040, kOfSm90) == 0);
    // Planes fill groups of sixteen dimensions up.
    CHECK(most(24, kOfSm90) == (kind == Codes::int2 || kind == Codes::int4row ? 128u : 0u));
  }
}

}  // namespace

int main() {
  as_many_go_together_as_there_is_room_for();
  return check::result();
}
