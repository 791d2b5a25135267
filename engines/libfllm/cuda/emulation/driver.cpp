// The driver and its kernels on the CPU: a stand-in for libfllm_cuda that tests load.
#include "cuda/driver.cu"  // NOLINT(bugprone-suspicious-include): the same source, for another machine

// For tests: how often graphs were launched.
extern "C" __attribute__((visibility("default"))) std::uint64_t fllm_emulated_graph_launches() {
  return fllm::cuda::emulation::graph_launches;
}
