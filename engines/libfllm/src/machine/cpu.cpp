#include "machine/cpu.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace fllm {

#if defined(__x86_64__)

namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf) {
  Registers r;
  __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool bit(unsigned value, int position) { return ((value >> position) & 1u) != 0; }

// The register states that the operating system saves on a context switch (XCR0).
unsigned long long saved_states() {
  if (!bit(cpuid(1).ecx, 27)) return 0;  // OSXSAVE
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

constexpr unsigned long long kAvxState = 0x6;
constexpr unsigned long long kAvx512State = 0xe6;
constexpr unsigned long long kAmxState = 0x60000;

bool covers(unsigned long long states, unsigned long long wanted) { return (states & wanted) == wanted; }

#if defined(__linux__)

// Linux hands out the tile registers (state 18) on request only. Kernels before 5.16 save them for nobody, and know
// neither of these calls.
constexpr int kSupportedStates = 0x1021;    // ARCH_GET_XCOMP_SUPP
constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr unsigned long kTileData = 18;

bool amx_on_request() {
  unsigned long long supported = 0;
  return syscall(SYS_arch_prctl, kSupportedStates, &supported) == 0 && (supported >> kTileData & 1u) != 0;
}

#else

bool amx_on_request() { return false; }

#endif

}  // namespace

bool request_amx() {
#if defined(__linux__)
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

std::vector<std::string> cpu_levels() {
  const Registers basic = cpuid(1);
  const Registers extended = cpuid(7);
  const unsigned long long states = saved_states();
  std::vector<std::string> levels{"scalar"};
  const bool avx2 = covers(states, kAvxState) && bit(basic.ecx, 12) && bit(basic.ecx, 29) && bit(extended.ebx, 5);
  if (!avx2) return levels;
  levels.emplace_back("avx2");
  const bool avx512 = covers(states, kAvx512State) && bit(extended.ebx, 16) && bit(extended.ebx, 17) &&
                      bit(extended.ebx, 30) && bit(extended.ebx, 31);
  if (!avx512) return levels;
  levels.emplace_back("avx512");
  if (!bit(extended.ecx, 11)) return levels;
  levels.emplace_back("avx512_vnni");
  const bool amx = covers(states, kAmxState) && bit(extended.edx, 24) && bit(extended.edx, 25) && amx_on_request();
  if (amx) levels.emplace_back("amx_int8");
  return levels;
}

#elif defined(__aarch64__)

namespace {

// The int8 kernels use the dot-product instructions, an extension of ARMv8.2.
bool dot_product() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__ARM_FEATURE_DOTPROD)
  return true;
#else
  return false;
#endif
}

}  // namespace

std::vector<std::string> cpu_levels() {
  std::vector<std::string> levels{"scalar"};
  if (dot_product()) levels.emplace_back("neon");
  return levels;
}

bool request_amx() { return false; }

#else

std::vector<std::string> cpu_levels() { return {"scalar"}; }

bool request_amx() { return false; }

#endif

}  // namespace fllm
