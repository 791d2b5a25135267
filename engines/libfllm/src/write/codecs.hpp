// Rows to the stored tensors of a codec and back (fllm_export/table/codecs.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/codec.hpp"
#include "kernels/kernels.hpp"

namespace fllm::writing {

// Where the stored tensors of some rows lie; a row of them has code_bytes() and group_bytes().
struct Stored {
  std::uint8_t* codes;
  std::uint8_t* groups;  // of int4, otherwise null
  float* scales;
};

// The same from row `row` on.
inline Stored from_row(Codec codec, const Stored& stored, std::size_t row, std::size_t dim) {
  std::uint8_t* groups = stored.groups == nullptr ? nullptr : stored.groups + row * group_bytes(codec, dim);
  return {stored.codes + row * code_bytes(codec, dim), groups, stored.scales + row};
}

void encode(const kernels::Kernels& kernels, Codec codec, const float* rows, std::size_t n, std::size_t dim,
            const Stored& stored);
void decode(const kernels::Kernels& kernels, Codec codec, const Stored& stored, std::size_t n, std::size_t dim,
            float* rows);

}  // namespace fllm::writing
