// The driver and its kernels on the CPU: a stand-in for libfllm_cuda that tests load.
#include "cuda/driver.cu"  // NOLINT(bugprone-suspicious-include): the same source, for another machine
