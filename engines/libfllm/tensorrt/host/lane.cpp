#include "lane.hpp"

#include <algorithm>

#include "cuda/host/packing.hpp"

namespace fllm::tensorrt {

Lane::Lane(const Plan& plan) : plan_(plan), stream_(plan.device()) {
  const std::size_t most = plan.most_batch();
  cuda::Packing packing;
  const auto place = [&]<typename T>(Tensor tensor, std::size_t n, T) {
    offsets_[static_cast<std::size_t>(tensor)] = packing.add<T>(n);
  };
  place(Tensor::limbs, plan.limbs() * most * plan.dim(), float{});
  place(Tensor::query_scale, most, float{});
  place(Tensor::valid_rows, 1, std::int64_t{});
  place(Tensor::scores, most * plan.k(), float{});
  place(Tensor::rows, most * plan.k(), std::int64_t{});
  place(Tensor::m, most, float{});
  place(Tensor::l, most, float{});
  host_ = cuda::Memory::pinned(plan.device(), packing.bytes());
  gpu_ = cuda::Memory::of_gpu(plan.device(), packing.bytes());
}

std::size_t Lane::scratch_bytes(std::size_t batch, std::uint64_t rows) const {
  return PlanContext(plan_, stream_, batch, rows).scratch_bytes();
}

void Lane::reserve(std::size_t bytes) {
  if (scratch_.size() >= bytes && scratch_.size() > 0) return;
  stream_.finish();
  // Graphs hold the old memory's address.
  for (auto& [shape, work] : work_) work.runs.clear();
  scratch_ = cuda::Memory();
  scratch_ = cuda::Memory::of_gpu(plan_.device(), std::max(bytes, cuda::Packing::kBoundary));
  for (auto& [shape, work] : work_) work.context.give_scratch(scratch_);
}

void Lane::set_items(const std::vector<const WholeItem*>& items, std::size_t batch) {
  stream_.finish();
  batch_ = batch;
  const std::size_t dim = plan_.dim(), count = plan_.limbs() * batch * dim;
  float* const limbs = on_host<float>(Tensor::limbs);
  float* const scales = on_host<float>(Tensor::query_scale);
  std::fill_n(limbs, count, 0.0f);
  std::fill_n(scales, batch, 0.0f);
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (std::size_t limb = 0; limb < plan_.limbs(); ++limb) {
      std::copy_n(items[i]->limbs.data() + limb * dim, dim, limbs + (limb * batch + i) * dim);
    }
    scales[i] = static_cast<float>(items[i]->scale);
  }
  send<float>(Tensor::limbs, count);
  send<float>(Tensor::query_scale, batch);
}

void Lane::run(const BlockAddresses& addresses, const Block& block, bool comes_again) {
  Work& work = work_for(block.rows);
  *on_host<std::int64_t>(Tensor::valid_rows) = static_cast<std::int64_t>(block.valid);
  send<std::int64_t>(Tensor::valid_rows, 1);
  if (!comes_again) {
    bind(work.context, addresses);
    put(work.context);
    return;
  }
  Runs& runs = work.runs[{addresses.codes, block.valid}];
  if (!runs.graph) bind(work.context, addresses);
  if (!runs.settled) {
    put(work.context);
    runs.settled = true;
    return;
  }
  if (!runs.graph) runs.graph = stream_.capture([&] { put(work.context); });
  stream_.launch(runs.graph);
}

Found Lane::finish() const {
  stream_.finish();
  return {on_host<float>(Tensor::scores), on_host<std::int64_t>(Tensor::rows), on_host<float>(Tensor::m),
          on_host<float>(Tensor::l)};
}

Lane::Work& Lane::work_for(std::uint64_t rows) {
  const auto found = work_.find({batch_, rows});
  if (found != work_.end()) return found->second;
  PlanContext context(plan_, stream_, batch_, rows);
  reserve(context.scratch_bytes());
  context.give_scratch(scratch_);
  return work_.emplace(std::pair(batch_, rows), Work{std::move(context), {}}).first->second;
}

void Lane::bind(const PlanContext& context, const BlockAddresses& addresses) const {
  context.set_address(Tensor::codes, addresses.codes);
  context.set_address(Tensor::scales, addresses.scales);
  if (plan_.has_bias()) context.set_address(Tensor::bias, addresses.bias);
  for (const Tensor tensor :
       {Tensor::valid_rows, Tensor::limbs, Tensor::query_scale, Tensor::scores, Tensor::rows, Tensor::m, Tensor::l}) {
    context.set_address(tensor, address(tensor));
  }
}

void Lane::put(const PlanContext& context) const {
  context.enqueue(stream_);
  fetch<float>(Tensor::scores, batch_ * plan_.k());
  fetch<std::int64_t>(Tensor::rows, batch_ * plan_.k());
  fetch<float>(Tensor::m, batch_);
  fetch<float>(Tensor::l, batch_);
}

std::uint8_t* Lane::address(Tensor tensor) const {
  return (plan_.on_host(tensor) ? host_ : gpu_).data() + offsets_[static_cast<std::size_t>(tensor)];
}

template <typename T>
void Lane::send(Tensor tensor, std::size_t n) const {
  if (!plan_.on_host(tensor)) stream_.copy(address(tensor), on_host<T>(tensor), n * sizeof(T));
}

template <typename T>
void Lane::fetch(Tensor tensor, std::size_t n) const {
  if (!plan_.on_host(tensor)) stream_.copy(on_host<T>(tensor), address(tensor), n * sizeof(T));
}

}  // namespace fllm::tensorrt
