#include "write/codecs.hpp"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <iterator>
#include <vector>

namespace fllm::writing {

namespace {

using kernels::Kernels;
using kernels::Writing;

constexpr std::size_t kGroup = 32;
constexpr double kFixedPoint = 0x1p15;
// The scales that are tried, relative to a row's root mean square (fllm_export/table/odd_grid.py).
constexpr double kSteps1[] = {1.0};
constexpr double kSteps3[] = {0.42, 0.5, 0.62, 0.9};
constexpr double kSteps15[] = {0.1, 0.13, 0.165, 0.21, 0.27, 0.36};

// What a row is encoded with.
struct Room {
  explicit Room(std::size_t dim) : fixed(dim), integers(dim), levels(dim + 2 * kernels::kPlaneDims) {}
  std::vector<std::int32_t> fixed;
  std::vector<std::int8_t> integers;
  std::vector<std::uint8_t> levels;
};

float largest_magnitude(const Writing& kernels, const float* row, std::size_t n) {
  return std::bit_cast<float>(kernels.peak(row, n));
}

// largest / steps; 1 of a row of zeros, and never so small that dividing by it overflows.
float scale_of(float largest, float steps) { return largest > 0 ? std::max(largest / steps, FLT_MIN) : 1.0f; }

float power_of_two_above(float largest) {
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0f, std::clamp(exponent, -125, 127));
}

float encode_int4(const Writing& kernels, const float* row, std::size_t dim, std::uint8_t* codes, std::uint8_t* groups,
                  Room& room) {
  const float scale = scale_of(largest_magnitude(kernels, row, dim), 7 * 255);
  for (std::size_t at = 0; at < dim; at += kGroup) {
    const std::size_t count = std::min(kGroup, dim - at);
    const float multiplier = std::ceil(largest_magnitude(kernels, row + at, count) / (7 * scale));
    groups[at / kGroup] = static_cast<std::uint8_t>(std::min(multiplier, 255.0f));
    const float step = std::max(scale * static_cast<float>(groups[at / kGroup]), FLT_MIN);
    kernels.to_integers(row + at, count, step, 7, room.integers.data() + at);
  }
  for (std::size_t j = 0; j < dim; j += 2) {
    const int high = j + 1 < dim ? room.integers[j + 1] + 8 : 0;
    codes[j / 2] = static_cast<std::uint8_t>((room.integers[j] + 8) | (high << 4));
  }
  return scale;
}

// The least-squares scale of a row's odd integers.
float odd_scale(const Writing& kernels, const float* row, std::size_t dim, std::size_t bits, Room& room) {
  const auto peak = static_cast<double>(largest_magnitude(kernels, row, dim));
  const double unit = (peak > 0 ? peak : 1.0) / kFixedPoint;
  const auto squares = static_cast<double>(kernels.magnitudes(row, dim, unit, room.fixed.data()));
  const double mean = std::max(std::sqrt(squares / static_cast<double>(dim)), 1.0);
  double best = -1, scale = 0;
  const auto attempt = [&](double step) {
    std::int64_t with = 0, of = 0;
    kernels.try_odd(room.fixed.data(), dim, 0.5 / (step * mean), kernels::largest_value(bits), &with, &of);
    const auto along = static_cast<double>(with), length = static_cast<double>(of);
    if (along * along > best * length) {
      best = along * along / length;
      scale = along / length;
    }
  };
  switch (bits) {
    case 1: std::for_each(std::begin(kSteps1), std::end(kSteps1), attempt); break;
    case 2: std::for_each(std::begin(kSteps3), std::end(kSteps3), attempt); break;
    default: std::for_each(std::begin(kSteps15), std::end(kSteps15), attempt);
  }
  scale *= unit;
  return static_cast<float>(scale >= FLT_MIN ? scale : 0.0);
}

// Two bits of each level, from `shift` on, as a plane of 4 bytes per 16 dimensions.
void pack_plane(const std::uint8_t* levels, std::size_t groups, int shift, std::uint8_t* plane) {
  for (std::size_t at = 0; at < 4 * groups; ++at) {
    const std::uint8_t* first = levels + at / 4 * kernels::kPlaneDims + at % 4;
    unsigned byte = 0;
    for (unsigned s = 0; s < 4; ++s) byte |= ((first[4 * s] >> shift) & 3u) << (2 * s);
    plane[at] = static_cast<std::uint8_t>(byte);
  }
}

// Single bits become numbers of two bits: a dimension of a group plus twice that of the next group.
void join_groups(std::uint8_t* levels, std::size_t places) {
  constexpr std::size_t kDims = kernels::kPlaneDims;
  for (std::size_t at = 0; at < places * kDims; ++at) {
    const std::uint8_t* first = levels + at / kDims * 2 * kDims + at % kDims;
    levels[at] = static_cast<std::uint8_t>(first[0] + 2 * first[kDims]);
  }
}

float encode_odd(const Writing& kernels, Codec codec, const float* row, std::size_t dim, std::uint8_t* codes,
                 Room& room) {
  const std::size_t bits = facts_of(codec).bits, planes = facts_of(codec).planes, groups = plane_places(codec, dim);
  const float scale = odd_scale(kernels, row, dim, bits, room);
  kernels.to_odd(row, dim, std::max(scale, FLT_MIN), kernels::largest_value(bits), room.levels.data());
  std::fill(room.levels.begin() + static_cast<std::ptrdiff_t>(dim), room.levels.end(), std::uint8_t{0});
  if (bits == 1) join_groups(room.levels.data(), groups);
  for (std::size_t plane = 0; plane < planes; ++plane) {
    const int shift = 2 * static_cast<int>(planes - 1 - plane);
    pack_plane(room.levels.data(), groups, shift, codes + plane * groups * 4);
  }
  return std::min(scale, FLT_MAX);
}

float encode_row(const Writing& kernels, Codec codec, const float* row, std::size_t dim, std::uint8_t* codes,
                 std::uint8_t* groups, Room& room) {
  const float largest = largest_magnitude(kernels, row, dim);
  switch (codec) {
    case Codec::fp32: std::memcpy(codes, row, dim * sizeof *row); return 1.0f;
    case Codec::fp16: {
      const float scale = power_of_two_above(largest);
      kernels.to_fp16(row, dim, scale, reinterpret_cast<std::uint16_t*>(codes));
      return scale;
    }
    case Codec::int8: {
      const float scale = scale_of(largest, 127);
      kernels.to_integers(row, dim, scale, 127, reinterpret_cast<std::int8_t*>(codes));
      return scale;
    }
    case Codec::fp8: {
      const float scale = scale_of(largest, 448);
      kernels.to_fp8(row, dim, scale, codes);
      return scale;
    }
    case Codec::int4: return encode_int4(kernels, row, dim, codes, groups, room);
    case Codec::int4row:
    case Codec::int2:
    case Codec::int1: return encode_odd(kernels, codec, row, dim, codes, room);
  }
  return 1.0f;
}

// The integers of a row in planes: 2 * level - largest.
void unpack_planes(Codec codec, const std::uint8_t* codes, std::size_t dim, std::int8_t* integers) {
  const std::size_t bits = facts_of(codec).bits, planes = facts_of(codec).planes, places = plane_places(codec, dim);
  const std::size_t place_dims = bits == 1 ? 32 : 16;
  const unsigned mask = bits == 1 ? 1 : 3;
  for (std::size_t j = 0; j < dim; ++j) {
    const std::size_t from = j % 16 / 4 * 2 + (bits == 1 ? j / 16 % 2 : 0);
    unsigned level = 0;
    for (std::size_t plane = 0; plane < planes; ++plane) {
      const unsigned byte = codes[(plane * places + j / place_dims) * 4 + j % 4];
      level = level * 4 + ((byte >> from) & mask);
    }
    integers[j] = static_cast<std::int8_t>(2 * static_cast<int>(level) - kernels::largest_value(bits));
  }
}

void decode_floats(const Kernels& kernels, Codec codec, const Stored& stored, std::size_t n, std::size_t dim,
                   float* rows) {
  constexpr std::size_t kRows = 16;
  const std::size_t stride = (dim + 15) / 16 * 16;
  std::vector<float> values(kRows * stride), norms(kRows);
  for (std::size_t at = 0; at < n; at += kRows) {
    const std::size_t count = std::min(kRows, n - at);
    const std::uint8_t* groups = stored.groups == nullptr ? nullptr : stored.groups + at * group_bytes(codec, dim);
    (kernels.*facts_of(codec).decode)(stored.codes + at * code_bytes(codec, dim), groups, count, dim, values.data(),
                                      norms.data());
    for (std::size_t r = 0; r < count; ++r) {
      float* row = rows + (at + r) * dim;
      const float* decoded = values.data() + r * stride;
      // A negative code of a group of zeros is -0 to some kernels and 0 to others; -0 + 0 is 0.
      if (codec == Codec::int4) {
        std::transform(decoded, decoded + dim, row, [](float value) { return value + 0.0f; });
      } else {
        std::memcpy(row, decoded, dim * sizeof *row);
      }
      kernels.writing.scale_floats(row, dim, stored.scales[at + r]);
    }
  }
}

}  // namespace

void encode(const Kernels& kernels, Codec codec, const float* rows, std::size_t n, std::size_t dim,
            const Stored& stored) {
  Room room(dim);
  const std::size_t row_groups = group_bytes(codec, dim);
  for (std::size_t r = 0; r < n; ++r) {
    std::uint8_t* groups = row_groups == 0 ? nullptr : stored.groups + r * row_groups;
    stored.scales[r] = encode_row(kernels.writing, codec, rows + r * dim, dim,
                                  stored.codes + r * code_bytes(codec, dim), groups, room);
  }
}

void decode(const Kernels& kernels, Codec codec, const Stored& stored, std::size_t n, std::size_t dim, float* rows) {
  if (facts_of(codec).decode != nullptr) return decode_floats(kernels, codec, stored, n, dim, rows);
  std::vector<std::int8_t> integers(dim);
  for (std::size_t r = 0; r < n; ++r) {
    const std::uint8_t* codes = stored.codes + r * code_bytes(codec, dim);
    const auto* numbers = reinterpret_cast<const std::int8_t*>(codes);
    if (codec != Codec::int8) {
      unpack_planes(codec, codes, dim, integers.data());
      numbers = integers.data();
    }
    kernels.writing.scale_integers(numbers, dim, stored.scales[r], rows + r * dim);
  }
}

}  // namespace fllm::writing
