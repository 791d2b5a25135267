// How rows are stored: everything that distinguishes one codec from another, in one table (docs/reference/format.md).
#pragma once

#include <cstddef>

#include "kernels/kernels.hpp"

namespace fllm {

enum class Codec { fp32, fp16, int8, fp8, int4 };

struct CodecFacts {
  Codec codec;
  const char* name;    // in table.json
  const char* dtype;   // of the tensor `codes`, as safetensors names it
  std::size_t bits;    // of one number
  bool grouped;        // whether the tensor `groups` holds an 8-bit multiplier for each 32 numbers
  bool integer_items;  // whether item vectors are rounded to integers, which makes sums exact
  kernels::Decode kernels::Kernels::* decode;  // to float32; null: rows are scored as they lie
};

// In the order of the enumeration.
inline constexpr CodecFacts kCodecs[] = {
    {Codec::fp32, "fp32", "F32", 32, false, false, &kernels::Kernels::decode_fp32},
    {Codec::fp16, "fp16", "F16", 16, false, false, &kernels::Kernels::decode_fp16},
    {Codec::int8, "int8", "I8", 8, false, true, nullptr},
    {Codec::fp8, "fp8", "F8_E4M3", 8, false, true, &kernels::Kernels::decode_fp8},
    {Codec::int4, "int4", "U8", 4, true, true, &kernels::Kernels::decode_int4},
};

constexpr const CodecFacts& facts_of(Codec codec) { return kCodecs[static_cast<std::size_t>(codec)]; }

constexpr const char* codec_name(Codec codec) { return facts_of(codec).name; }

// Bytes of one row's `codes` and `groups`.
constexpr std::size_t code_bytes(Codec codec, std::size_t dim) { return (facts_of(codec).bits * dim + 7) / 8; }
constexpr std::size_t group_bytes(Codec codec, std::size_t dim) {
  return facts_of(codec).grouped ? (dim + 31) / 32 : 0;
}

}  // namespace fllm
