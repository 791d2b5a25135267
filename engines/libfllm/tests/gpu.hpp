// A GPU for the tests of kernels: the one that the driver named by FLLM_CUDA_LIBRARY offers, emulated or real, and
// arrays that lie in its memory.
#pragma once

#include <utility>
#include <vector>

#include "cuda/host/device.hpp"
#include "cuda/host/library.hpp"

class Gpu {
 public:
  Gpu() : device_(fllm::cuda::load_driver(), 0), stream_(device_) {}

  const fllm::cuda::Driver& driver() const { return device_.driver(); }
  const fllm::cuda::Device& device() const { return device_; }
  const fllm::cuda::Stream& stream() const { return stream_; }

  // Waits for what a call of the driver put on the stream.
  void finish(int status) const {
    device_.check(status, "a test");
    stream_.finish();
  }

 private:
  fllm::cuda::Device device_;
  fllm::cuda::Stream stream_;
};

// An array of the host and its copy in the GPU's memory, of as many bytes.
template <typename T>
class Mirrored {
 public:
  explicit Mirrored(const Gpu& gpu, std::vector<T> values = {}) : host(std::move(values)), gpu_(&gpu) {}

  // Copies the host's to the GPU, and returns where it lies there.
  T* push() {
    if (copy_.size() < bytes()) copy_ = fllm::cuda::Memory::of_gpu(gpu_->device(), bytes());
    gpu_->stream().copy(copy_.data(), host.data(), bytes());
    gpu_->stream().finish();
    return data();
  }

  // Copies the GPU's to the host.
  void pull() {
    gpu_->stream().copy(host.data(), copy_.data(), bytes());
    gpu_->stream().finish();
  }

  // In the GPU's memory; what was pushed last.
  T* data() const { return reinterpret_cast<T*>(copy_.data()); }

  std::vector<T> host;

 private:
  std::size_t bytes() const { return host.size() * sizeof(T); }

  const Gpu* gpu_;
  fllm::cuda::Memory copy_;
};
