// A plan at work on tiles of one shape.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/host/device.hpp"
#include "plan.hpp"

namespace fllm::tensorrt {

class PlanContext {
 public:
  // Waits for the stream.
  PlanContext(const Plan& plan, const cuda::Stream& stream, std::size_t batch, std::uint64_t rows);

  // Of the GPU's memory, while it runs.
  std::size_t scratch_bytes() const { return scratch_bytes_; }
  void give_scratch(const cuda::Memory& memory) const;
  void set_address(Tensor tensor, void* address) const;
  // The first call must not be captured.
  void enqueue(const cuda::Stream& stream) const;

 private:
  void set_shape(Tensor tensor, const Shape& shape) const;

  const Plan* plan_;
  cuda::Owned context_;
  std::size_t scratch_bytes_ = 0;
};

}  // namespace fllm::tensorrt
