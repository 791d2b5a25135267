// The plan driver on the CPU: a stand-in for libfllm_tensorrt that tests load.
#include "tensorrt/plan_driver.cpp"  // NOLINT(bugprone-suspicious-include): the same source, for another machine

// For tests: plans put on streams uncaptured, and captured.
extern "C" __attribute__((visibility("default"))) std::uint64_t fllm_emulated_enqueued() {
  return nvinfer1::emulation::counts.enqueued;
}
extern "C" __attribute__((visibility("default"))) std::uint64_t fllm_emulated_captured() {
  return nvinfer1::emulation::counts.captured;
}
