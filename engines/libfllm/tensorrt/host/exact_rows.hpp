// Exact scores of single rows, on the host: float32(sum * (row scale * item scale) + bias), as every engine defines it.
#pragma once

#include <array>
#include <cstdint>

#include "cuda/host/device_table.hpp"
#include "search.hpp"
#include "whole_item.hpp"

namespace fllm::tensorrt {

class ExactRows {
 public:
  // An int8 or fp8 table, whose memory must stay.
  explicit ExactRows(const cuda::Rows& table);

  // `row` is the number of a row in the table, in scan order.
  Candidate score(std::uint64_t row, const WholeItem& item) const;

 private:
  const cuda::Rows table_;
  std::array<double, 256> values_;  // of the codes
};

}  // namespace fllm::tensorrt
