// Decoding and float32 sums without vector instructions: what the other levels are held against.
#include <cfloat>
#include <cmath>
#include <cstring>

#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kPad = 16;
constexpr std::size_t kGroupDims = 32;

std::size_t padded(std::size_t dim) { return (dim + kPad - 1) / kPad * kPad; }

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float half_value(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t{half & 0x8000u} << 16;
  const std::uint32_t exponent = (half >> 10) & 31u, mantissa = half & 1023u;
  if (exponent == 0) return std::copysign(static_cast<float>(mantissa) * 0x1p-24f, from_bits(sign | 0x3f800000u));
  if (exponent == 31) return from_bits(sign | 0x7f800000u | (mantissa << 13));
  return from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// OCP e4m3: bias 7, no infinity, one NaN of either sign.
float e4m3_value(std::uint8_t code) {
  const std::uint32_t sign = std::uint32_t{code & 0x80u} << 24;
  const std::uint32_t exponent = (code >> 3) & 15u, mantissa = code & 7u;
  if (exponent == 15 && mantissa == 7) return from_bits(sign | 0x7fc00000u);
  if (exponent == 0) return std::copysign(static_cast<float>(mantissa) * 0x1p-9f, from_bits(sign | 0x3f800000u));
  return from_bits(sign | ((exponent + 120) << 23) | (mantissa << 20));
}

// At least the Euclidean norm. Squares are summed in double, where those of float32 values neither overflow nor vanish.
float norm_above(const float* values, std::size_t count) {
  double squares = 0;
  for (std::size_t j = 0; j < count; ++j) squares += static_cast<double>(values[j]) * values[j];
  const float norm = static_cast<float>(std::sqrt(squares) * (1 + 0x1p-20));
  return squares > 0 && norm < FLT_MIN ? FLT_MIN : norm;
}

// Fills rows of padded values by value(row, j).
template <class Value>
void decode(std::size_t rows, std::size_t dim, float* values, float* norms, Value value) {
  const std::size_t stride = padded(dim);
  for (std::size_t r = 0; r < rows; ++r) {
    float* row = values + r * stride;
    for (std::size_t j = 0; j < dim; ++j) row[j] = value(r, j);
    for (std::size_t j = dim; j < stride; ++j) row[j] = 0;
    norms[r] = norm_above(row, dim);
  }
}

void decode_fp32(const void* codes, const std::uint8_t*, std::size_t rows, std::size_t dim, float* values,
                 float* norms) {
  const auto* bytes = static_cast<const unsigned char*>(codes);
  decode(rows, dim, values, norms, [=](std::size_t r, std::size_t j) {
    float value;
    std::memcpy(&value, bytes + 4 * (r * dim + j), sizeof value);
    return value;
  });
}

void decode_fp16(const void* codes, const std::uint8_t*, std::size_t rows, std::size_t dim, float* values,
                 float* norms) {
  const auto* bytes = static_cast<const unsigned char*>(codes);
  decode(rows, dim, values, norms, [=](std::size_t r, std::size_t j) {
    std::uint16_t half;
    std::memcpy(&half, bytes + 2 * (r * dim + j), sizeof half);
    return half_value(half);
  });
}

void decode_fp8(const void* codes, const std::uint8_t*, std::size_t rows, std::size_t dim, float* values,
                float* norms) {
  const auto* bytes = static_cast<const std::uint8_t*>(codes);
  decode(rows, dim, values, norms, [=](std::size_t r, std::size_t j) { return e4m3_value(bytes[r * dim + j]); });
}

void decode_int4(const void* codes, const std::uint8_t* groups, std::size_t rows, std::size_t dim, float* values,
                 float* norms) {
  const auto* bytes = static_cast<const std::uint8_t*>(codes);
  const std::size_t row_bytes = (dim + 1) / 2, row_groups = (dim + kGroupDims - 1) / kGroupDims;
  decode(rows, dim, values, norms, [=](std::size_t r, std::size_t j) {
    const int code = (bytes[r * row_bytes + j / 2] >> (j % 2 * 4)) & 15;
    return static_cast<float>((code - 8) * groups[r * row_groups + j / kGroupDims]);
  });
}

void float_one(const float* values, std::size_t rows, std::size_t padded_dim, const float* query, float* sums) {
  for (std::size_t r = 0; r < rows; ++r) {
    const float* row = values + r * padded_dim;
    float lanes[kPad] = {};
    for (std::size_t j = 0; j < padded_dim; j += kPad)
      for (std::size_t l = 0; l < kPad; ++l) lanes[l] += row[j + l] * query[j + l];
    for (std::size_t width = kPad / 2; width > 0; width /= 2)
      for (std::size_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    sums[r] = lanes[0];
  }
}

void float_many(const float* values, std::size_t rows, std::size_t padded_dim, std::size_t items, const float* packed,
                float* sums) {
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t first = 0; first < items; first += kItemLanes) {
      float lanes[kItemLanes] = {};
      for (std::size_t j = 0; j < padded_dim; ++j) {
        const float value = values[r * padded_dim + j];
        const float* column = packed + j * items + first;
        for (std::size_t l = 0; l < kItemLanes; ++l) lanes[l] += value * column[l];
      }
      std::memcpy(sums + r * items + first, lanes, sizeof lanes);
    }
  }
}

}  // namespace

void fill_float_scalar(Kernels& kernels) {
  kernels.decode_fp32 = decode_fp32;
  kernels.decode_fp16 = decode_fp16;
  kernels.decode_fp8 = decode_fp8;
  kernels.decode_int4 = decode_int4;
  kernels.float_one = float_one;
  kernels.float_many = float_many;
}

}  // namespace fllm::kernels
