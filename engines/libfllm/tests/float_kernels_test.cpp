// Decoding and float32 sums of every level against plain double arithmetic.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "guarded.hpp"
#include "kernels/kernels.hpp"
#include "machine/cpu.hpp"

namespace {

using fllm::kernels::Decode;
using fllm::kernels::Kernels;

std::mt19937_64 random_bits(20);

std::vector<std::size_t> dims() {
  std::vector<std::size_t> all;
  for (std::size_t dim = 1; dim <= 70; ++dim) all.push_back(dim);
  all.insert(all.end(), {128, 384, 1000});
  return all;
}

std::size_t padded(std::size_t dim) { return (dim + 15) / 16 * 16; }

// ---- what the codes stand for, by the formats' definitions

double fp16_value(const unsigned char* row, std::size_t j) {
  const unsigned half = row[2 * j] | (row[2 * j + 1] << 8);
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  const double sign = (half & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

double fp8_value(const unsigned char* row, std::size_t j) {
  const int exponent = (row[j] >> 3) & 15, mantissa = row[j] & 7;
  const double sign = (row[j] & 0x80) != 0 ? -1 : 1;
  if (exponent == 15 && mantissa == 7) return NAN;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
}

double fp32_value(const unsigned char* row, std::size_t j) {
  float value;
  std::memcpy(&value, row + 4 * j, 4);
  return value;
}

int int4_value(const unsigned char* row, const unsigned char* groups, std::size_t j) {
  return ((j % 2 == 0 ? row[j / 2] & 15 : row[j / 2] >> 4) - 8) * groups[j / 32];
}

bool same(float found, double expected) {
  if (std::isnan(expected)) return std::isnan(found);
  return static_cast<double>(found) == expected && std::signbit(found) == std::signbit(expected);
}

// ---- decoding

std::vector<unsigned char> random_bytes(std::size_t count) {
  std::vector<unsigned char> bytes(count);
  for (auto& byte : bytes) byte = static_cast<unsigned char>(random_bits());
  return bytes;
}

// Checks rows of decoded values and their norms; expected(r, j) is the true value.
template <class Expected>
void check_rows(const std::vector<float>& values, const std::vector<float>& norms, std::size_t dim, Expected expected) {
  for (std::size_t r = 0; r < norms.size(); ++r) {
    double squares = 0;
    for (std::size_t j = 0; j < padded(dim); ++j) {
      const double value = j < dim ? expected(r, j) : 0.0;
      CHECK(same(values[r * padded(dim) + j], value));
      squares += value * value;
    }
    const double norm = std::sqrt(squares);
    if (std::isnan(norm)) {
      CHECK(std::isnan(norms[r]));
    } else {
      CHECK(norms[r] >= norm);
      CHECK(norms[r] <= norm * 1.0002 + FLT_MIN || norm > FLT_MAX / 1.0002);
    }
  }
}

using Value = double (*)(const unsigned char*, std::size_t);

void check_plain(Decode decode, Value value, const std::vector<unsigned char>& codes, std::size_t rows,
                 std::size_t dim) {
  const Guarded guarded(codes.data(), codes.size());
  std::vector<float> values(rows * padded(dim), 7.0f), norms(rows);
  decode(guarded.data(), nullptr, rows, dim, values.data(), norms.data());
  const std::size_t row_bytes = codes.size() / rows;
  check_rows(values, norms, dim, [&](std::size_t r, std::size_t j) { return value(&codes[r * row_bytes], j); });
}

// Halves at hand are finite, so that the norms mean something; the special ones have a test of their own.
std::vector<unsigned char> finite_halves(std::size_t count) {
  auto bytes = random_bytes(2 * count);
  for (std::size_t i = 1; i < bytes.size(); i += 2)
    if ((bytes[i] & 0x7c) == 0x7c) bytes[i] ^= 0x40;
  return bytes;
}

std::vector<unsigned char> finite_e4m3(std::size_t count) {
  auto bytes = random_bytes(count);
  for (auto& byte : bytes)
    if ((byte & 0x7f) == 0x7f) byte ^= 1;
  return bytes;
}

std::vector<unsigned char> floats(std::size_t count, double magnitude) {
  std::vector<unsigned char> bytes(4 * count);
  std::normal_distribution<double> normal;
  for (std::size_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(std::clamp(normal(random_bits) * magnitude, -3.4e38, 3.4e38));
    std::memcpy(&bytes[4 * i], &value, 4);
  }
  return bytes;
}

void decodes_int4(const Kernels& kernels, std::size_t rows, std::size_t dim) {
  const std::size_t row_bytes = (dim + 1) / 2, row_groups = (dim + 31) / 32;
  const auto codes = random_bytes(rows * row_bytes), groups = random_bytes(rows * row_groups);
  const Guarded guarded(codes.data(), codes.size()), guarded_groups(groups.data(), groups.size());
  std::vector<float> values(rows * padded(dim), 7.0f), norms(rows);
  kernels.decode_int4(guarded.data(), guarded_groups.data(), rows, dim, values.data(), norms.data());
  check_rows(values, norms, dim, [&](std::size_t r, std::size_t j) {
    const int value = int4_value(&codes[r * row_bytes], &groups[r * row_groups], j);
    const bool negative_zero = value == 0 && std::signbit(values[r * padded(dim) + j]);
    return negative_zero ? -0.0 : static_cast<double>(value);  // the sign of a product with 0 is nobody's concern
  });
}

void decodes(const Kernels& kernels) {
  for (const std::size_t dim : dims()) {
    for (const std::size_t rows : {1, 2, 11}) {
      const std::size_t count = rows * dim;
      check_plain(kernels.decode_fp16, fp16_value, finite_halves(count), rows, dim);
      check_plain(kernels.decode_fp8, fp8_value, finite_e4m3(count), rows, dim);
      for (const double magnitude : {1.0, 1e-3, 1e-25, 1e-42, 1e19, 1e38, 0.0})
        check_plain(kernels.decode_fp32, fp32_value, floats(count, magnitude), rows, dim);
      decodes_int4(kernels, rows, dim);
    }
  }
}

void decodes_every_code(const Kernels& kernels) {
  std::vector<unsigned char> halves(2 * 65536), bytes(256);
  for (std::size_t i = 0; i < halves.size(); ++i)
    halves[i] = static_cast<unsigned char>(i % 2 == 0 ? i / 2 : i / 2 >> 8);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i);
  check_plain(kernels.decode_fp16, fp16_value, halves, 64, 1024);
  check_plain(kernels.decode_fp8, fp8_value, bytes, 1, 256);
  check_plain(kernels.decode_fp8, fp8_value, bytes, 16, 16);
}

// ---- sums

struct Matrix {
  std::size_t rows, dim;
  std::vector<float> values;  // [rows, padded dim]

  Matrix(std::size_t rows, std::size_t dim) : rows(rows), dim(dim), values(rows * padded(dim)) {
    std::normal_distribution<float> normal(0.2f);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t j = 0; j < dim; ++j) values[r * padded(dim) + j] = normal(random_bits);
  }
  const float* row(std::size_t r) const { return &values[r * padded(dim)]; }
};

void check_sum(float sum, const float* a, const float* b, std::size_t dim) {
  double expected = 0, a_squares = 0, b_squares = 0;
  for (std::size_t j = 0; j < dim; ++j) {
    expected += static_cast<double>(a[j]) * b[j];
    a_squares += static_cast<double>(a[j]) * a[j];
    b_squares += static_cast<double>(b[j]) * b[j];
  }
  CHECK(std::abs(sum - expected) <= fllm::kernels::float_error(dim) * std::sqrt(a_squares * b_squares));
}

void sums_of_one(const Kernels& kernels, std::size_t rows, std::size_t dim) {
  const Matrix users(rows, dim), query(1, dim);
  const Guarded values(users.values.data(), 4 * users.values.size()), item(query.values.data(), 4 * padded(dim));
  std::vector<float> sums(rows);
  kernels.float_one(values.as<float>(), rows, padded(dim), item.as<float>(), sums.data());
  for (std::size_t r = 0; r < rows; ++r) check_sum(sums[r], users.row(r), query.row(0), dim);
}

void sums_of_many(const Kernels& kernels, std::size_t rows, std::size_t dim, std::size_t items) {
  const Matrix users(rows, dim), queries(items, dim);
  std::vector<float> packed(padded(dim) * items), sums(rows * items);
  for (std::size_t i = 0; i < items; ++i)
    for (std::size_t j = 0; j < padded(dim); ++j) packed[j * items + i] = queries.row(i)[j];
  const Guarded values(users.values.data(), 4 * users.values.size()), columns(packed.data(), 4 * packed.size());
  const Guarded out(sums.data(), 4 * sums.size());
  kernels.float_many(values.as<float>(), rows, padded(dim), items, columns.as<float>(), out.as<float>());
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t i = 0; i < items; ++i)
      check_sum(out.as<float>()[r * items + i], users.row(r), queries.row(i), dim);
}

void sums(const Kernels& kernels) {
  for (const std::size_t dim : dims())
    for (const std::size_t rows : {1, 3, 8, 64}) sums_of_one(kernels, rows, dim);
  for (const std::size_t dim : {1, 17, 64, 128, 1000})
    for (const std::size_t rows : {1, 7, 19, 64})
      for (const std::size_t items : {16, 32, 48, 112}) sums_of_many(kernels, rows, dim, items);
}

}  // namespace

int main() {
  for (const std::string& level : fllm::cpu_levels()) {
    const Kernels* kernels = fllm::kernels::find(level.c_str());
    if (kernels == nullptr) continue;
    decodes(*kernels);
    decodes_every_code(*kernels);
    sums(*kernels);
  }
  return check::result();
}
