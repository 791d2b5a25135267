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

void encode(const kernels::Kernels& kernels, Codec codec, const float* rows, std::size_t n, std::size_t dim,
            const Stored& stored);
void decode(const kernels::Kernels& kernels, Codec codec, const Stored& stored, std::size_t n, std::size_t dim,
            float* rows);

}  // namespace fllm::writing
