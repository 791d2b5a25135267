#include "plan_context.hpp"

namespace fllm::tensorrt {

namespace {

cuda::Owned made_context(const Plan& plan, const cuda::Stream& stream, std::int32_t profile) {
  void* context = nullptr;
  plan.check(plan.driver().create_context(plan.get(), profile, stream.get(), &context), "making a context");
  return {context, plan.driver().destroy_context};
}

}  // namespace

PlanContext::PlanContext(const Plan& plan, const cuda::Stream& stream, std::size_t batch, std::uint64_t rows)
    : plan_(&plan), context_(made_context(plan, stream, plan.profile(batch, rows))) {
  stream.finish();  // the profile is chosen on it
  const auto b = static_cast<std::int64_t>(batch), t = static_cast<std::int64_t>(rows);
  const auto d = static_cast<std::int64_t>(plan.dim());
  set_shape(Tensor::codes, {2, {t, d}});
  set_shape(Tensor::scales, {1, {t}});
  if (plan.has_bias()) set_shape(Tensor::bias, {1, {t}});
  set_shape(Tensor::limbs, {3, {static_cast<std::int64_t>(plan.limbs()), b, d}});
  set_shape(Tensor::query_scale, {1, {b}});
  plan.check(plan.driver().scratch_bytes(context_.get(), &scratch_bytes_), "asking for the memory that it needs");
}

void PlanContext::set_shape(Tensor tensor, const Shape& shape) const {
  plan_->check(plan_->driver().set_shape(context_.get(), tensor_name(tensor), &shape), "setting a shape");
}

void PlanContext::give_scratch(const cuda::Memory& memory) const {
  plan_->check(plan_->driver().give_scratch(context_.get(), memory.data(), memory.size()), "giving it memory");
}

void PlanContext::set_address(Tensor tensor, void* address) const {
  plan_->check(plan_->driver().set_address(context_.get(), tensor_name(tensor), address), "setting an address");
}

void PlanContext::enqueue(const cuda::Stream& stream) const {
  plan_->check(plan_->driver().enqueue(context_.get(), stream.get()), "running it");
}

}  // namespace fllm::tensorrt
