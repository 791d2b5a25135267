#include "device_filters.hpp"

#include <algorithm>

namespace fllm::cuda {

const std::uint32_t* DeviceFilters::bits(const UserFilter* filter, const Stream& stream) {
  if (filter == nullptr) return nullptr;
  auto found = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& k) { return k.number == filter->number(); });
  if (found == kept_.end()) {
    while (kept_.size() > std::max(in_use_, kMostIdle - 1)) kept_.pop_back();
    Memory bits = Memory::of_gpu(device_, filter->bits().size() * sizeof(std::uint64_t));
    stream.copy(bits.data(), filter->bits().data(), bits.size());
    stream.finish();
    kept_.push_back({filter->number(), std::move(bits)});
    found = kept_.end() - 1;
  }
  if (static_cast<std::size_t>(found - kept_.begin()) >= in_use_) ++in_use_;
  Kept used = std::move(*found);
  kept_.erase(found);
  kept_.push_front(std::move(used));
  return reinterpret_cast<const std::uint32_t*>(kept_.front().bits.data());
}

}  // namespace fllm::cuda
