// Centres of clusters that lie well apart (fllm_export/table/centres.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/kernels.hpp"
#include "machine/aligned.hpp"

namespace fllm::writing {

class Centres {
 public:
  // Of the clusters of n points [n, kernels::kPointFloats]; nothing where they do not lie well apart.
  static std::optional<Centres> find(const kernels::Writing& kernels, const float* points, std::size_t n);

  std::size_t count() const { return count_; }

  // The nearest centre of each of n points, the first of equally near ones, or count() where it lies beyond the reach
  // of a cluster, and the squared distance from it.
  void owners(const float* points, std::size_t n, std::int32_t* owners, std::int32_t* squares) const;

 private:
  struct Sample;

  static std::vector<std::int16_t> within(const kernels::Writing& kernels, const Sample& sample, std::int32_t reach,
                                          std::size_t n);

  // Of `places` [count, kernels::kFeatures], integers.
  Centres(const kernels::Writing& kernels, double factor, std::int32_t reach, const std::vector<std::int16_t>& places);

  const kernels::Writing* kernels_;
  double factor_;
  std::int32_t reach_;
  std::size_t count_;
  Aligned<float> panels_, halves_;
};

}  // namespace fllm::writing
