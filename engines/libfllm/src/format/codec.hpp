// How rows are stored: everything that distinguishes one codec from another, in one table (docs/reference/format.md).
#pragma once

#include <cstddef>

#include "kernels/kernels.hpp"

namespace fllm {

enum class Codec { fp32, fp16, int8, fp8, int4, int4row, int2, int1 };

struct CodecFacts {
  Codec codec;
  const char* name;    // in table.json
  const char* dtype;   // of the tensor `codes`, as safetensors names it
  std::size_t bits;    // of one number
  std::size_t planes;  // in blocks of 16 rows (kernels/planes.hpp); 0: each row lies by itself
  bool grouped;        // whether the tensor `groups` holds an 8-bit multiplier for each 32 numbers
  bool integer_items;  // whether item vectors are rounded to integers, which makes sums exact
  int largest;         // magnitude of a value of 8 bits at most, by which rows are scored as integers; 0 of others
  kernels::Decode kernels::Kernels::* decode;  // to float32, of those others
};

// In the order of the enumeration.
inline constexpr CodecFacts kCodecs[] = {
    {Codec::fp32, "fp32", "F32", 32, 0, false, false, 0, &kernels::Kernels::decode_fp32},
    {Codec::fp16, "fp16", "F16", 16, 0, false, false, 0, &kernels::Kernels::decode_fp16},
    {Codec::int8, "int8", "I8", 8, 0, false, true, 128, nullptr},
    {Codec::fp8, "fp8", "F8_E4M3", 8, 0, false, true, 0, &kernels::Kernels::decode_fp8},
    {Codec::int4, "int4", "U8", 4, 0, true, true, 0, &kernels::Kernels::decode_int4},
    {Codec::int4row, "int4row", "U8", 4, 2, false, true, 15, nullptr},
    {Codec::int2, "int2", "U8", 2, 1, false, true, 3, nullptr},
    {Codec::int1, "int1", "U8", 1, 1, false, true, 1, nullptr},
};

constexpr const CodecFacts& facts_of(Codec codec) { return kCodecs[static_cast<std::size_t>(codec)]; }

constexpr const char* codec_name(Codec codec) { return facts_of(codec).name; }

// Groups of 16 dimensions in a plane of bits; the last one is filled up.
constexpr std::size_t plane_groups(std::size_t dim) { return (dim + kernels::kPlaneDims - 1) / kernels::kPlaneDims; }

// Dimensions of a row's codes, those that fill groups up included: of one bit, two groups at once.
constexpr std::size_t code_dims(Codec codec, std::size_t dim) {
  if (facts_of(codec).planes == 0) return dim;
  const std::size_t groups = plane_groups(dim);
  return (facts_of(codec).bits == 1 ? groups + groups % 2 : groups) * kernels::kPlaneDims;
}

// Bytes of one row's `codes` and `groups`; in blocks, a row's share of them.
constexpr std::size_t code_bytes(Codec codec, std::size_t dim) {
  return (facts_of(codec).bits * code_dims(codec, dim) + 7) / 8;
}
constexpr std::size_t group_bytes(Codec codec, std::size_t dim) {
  return facts_of(codec).grouped ? (dim + 31) / 32 : 0;
}

// Places of 64 bytes in a plane of 16 rows.
constexpr std::size_t plane_places(Codec codec, std::size_t dim) {
  constexpr std::size_t kLane = kernels::kPlaneBytes / kernels::kPlaneRows;
  return code_bytes(codec, dim) / (kLane * facts_of(codec).planes);
}

}  // namespace fllm
