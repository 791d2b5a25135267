// The functions of writing.h: each shares its rows out among threads.
#include <algorithm>
#include <bit>
#include <string_view>

#include "api/boundary.hpp"
#include "kernels/kernels.hpp"
#include "write/codecs.hpp"
#include "write/fixed_point.hpp"
#include "write/parallel.hpp"
#include "write/row_order.hpp"
#include "write/sketch_rows.hpp"
#include "write/tile_extents.hpp"
#include "write/tiling.hpp"
#include "write/user_sums.hpp"
#include "write/writing.h"

namespace {

using fllm::Codec;
using fllm::guarded;
using fllm::writing::for_parts;
using fllm::writing::from_row;
using fllm::writing::rows_of_part;
using fllm::writing::Stored;

const fllm::kernels::Kernels& kernels() { return *fllm::kernels::find(""); }

Codec codec_named(std::string_view name) {
  for (const fllm::CodecFacts& facts : fllm::kCodecs)
    if (name == facts.name) return facts.codec;
  throw fllm::Error(fllm::Status::usage, fllm::sentence("there is no codec '" + std::string(name) + "'", "another"));
}

void require_dim(std::size_t dim) {
  fllm::require(dim >= 1 && dim <= fllm::writing::kDimMax, "rows have too many dimensions, or none", "1 to 65536");
}

}  // namespace

fllm_status fllm_write_check(const float* rows, size_t n, size_t dim, size_t* first, fllm_error* error) {
  return guarded(error, [&] {
    require_dim(dim);
    const auto& writing = kernels().writing;
    std::atomic<std::size_t> found{n};
    for_parts(n, rows_of_part(dim), [&](std::size_t start, std::size_t stop) {
      if (writing.peak(rows + start * dim, (stop - start) * dim) < 0x7f800000u) return;
      while (writing.peak(rows + start * dim, dim) < 0x7f800000u) ++start;
      std::size_t known = found;
      while (start < known && !found.compare_exchange_weak(known, start)) {
      }
    });
    *first = found;
  });
}

fllm_status fllm_write_encode(const char* codec, const float* rows, size_t n, size_t dim, void* codes, uint8_t* groups,
                              float* scales, fllm_error* error) {
  return guarded(error, [&] {
    require_dim(dim);
    const Codec known = codec_named(codec);
    const Stored stored{static_cast<std::uint8_t*>(codes), groups, scales};
    for_parts(n, rows_of_part(dim), [&](std::size_t start, std::size_t stop) {
      encode(kernels(), known, rows + start * dim, stop - start, dim, from_row(known, stored, start, dim));
    });
  });
}

fllm_status fllm_write_decode(const char* codec, const void* codes, const uint8_t* groups, const float* scales,
                              size_t n, size_t dim, float* rows, fllm_error* error) {
  return guarded(error, [&] {
    require_dim(dim);
    const Codec known = codec_named(codec);
    const Stored stored{static_cast<std::uint8_t*>(const_cast<void*>(codes)), const_cast<std::uint8_t*>(groups),
                        const_cast<float*>(scales)};
    for_parts(n, rows_of_part(dim), [&](std::size_t start, std::size_t stop) {
      decode(kernels(), known, from_row(known, stored, start, dim), stop - start, dim, rows + start * dim);
    });
  });
}

fllm_status fllm_write_features(const float* rows, size_t n, size_t dim, const float* directions, size_t count,
                                float* points, fllm_error* error) {
  return guarded(error, [&] {
    require_dim(dim);
    fllm::require(count <= fllm::kernels::kFeatures, "there are too many directions", "at most 32");
    const fllm::writing::Weights weights(directions, count, dim);
    for_parts(n, rows_of_part(dim), [&](std::size_t start, std::size_t stop) {
      write_points(kernels().writing, weights, rows + start * dim, stop - start, dim, count,
                   points + start * fllm::kernels::kPointFloats);
    });
  });
}

fllm_status fllm_write_order(const float* points, size_t n, size_t tile_rows, int64_t* order, fllm_error* error) {
  return guarded(error, [&] {
    fllm::require(n < (std::uint64_t{1} << 32) && tile_rows >= 1, "a shard has too many rows", "less than 2^32");
    fllm::writing::order_rows(kernels().writing, points, n, tile_rows, order);
  });
}

fllm_status fllm_write_tiling(const float* points, size_t n, size_t tile_rows, int64_t* order, int64_t* ends,
                              size_t* tiles, fllm_error* error) {
  return guarded(error, [&] {
    fllm::require(n < (std::uint64_t{1} << 32) && tile_rows >= 1, "a shard has too many rows", "less than 2^32");
    const std::vector<std::uint64_t> found =
        fllm::writing::tile_rows_of(kernels().writing, points, n, tile_rows, order);
    std::copy(found.begin(), found.end(), ends);
    *tiles = found.size();
  });
}

fllm_status fllm_write_bounds(const float* rows, size_t n, size_t dim, const float* bias, size_t tile_rows,
                              float* directions, float* extents, fllm_error* error) {
  return guarded(error, [&] {
    require_dim(dim);
    for_parts(n, tile_rows, [&](std::size_t start, std::size_t stop) {
      const std::size_t tile = start / tile_rows;
      fllm::writing::describe_tile(kernels().writing, rows + start * dim, stop - start, dim,
                                   bias == nullptr ? nullptr : bias + start, directions + tile * dim,
                                   extents + tile * 4);
    });
  });
}

fllm_status fllm_write_sketch(const float* rows, size_t n, size_t dim, const float* basis, size_t sketch_dims,
                              double defect, double snapped, uint8_t* coarse, uint16_t* coarse_factors, uint8_t* fine,
                              uint16_t* fine_factors, fllm_error* error) {
  return guarded(error, [&] {
    require_dim(dim);
    fllm::require(sketch_dims >= 1 && sketch_dims % fllm::kernels::kPlaneDims == 0, "the sketch has no such dimensions",
                  "a multiple of 16");
    const fllm::writing::Weights weights(basis, sketch_dims, dim);
    const fllm::writing::SketchBasis by{weights, sketch_dims, dim, defect, snapped};
    const std::size_t codes = sketch_dims * 4, factors = by.parts() * fllm::kernels::kPlaneRows;
    for_parts(n, rows_of_part(dim), [&](std::size_t start, std::size_t stop) {
      const std::size_t block = start / fllm::kernels::kPlaneRows;
      sketch_rows(kernels().writing, by, rows + start * dim, stop - start,
                  {coarse + block * codes, fine + block * codes, coarse_factors + block * factors,
                   fine_factors + block * factors});
    });
  });
}

fllm_status fllm_write_user_rows(const float* vectors, size_t count, size_t dim, const int32_t* items,
                                 const int64_t* starts, size_t n, const double* factors, float* rows,
                                 fllm_error* error) {
  return guarded(error, [&] {
    require_dim(dim);
    const bool inside = std::all_of(items + starts[0], items + starts[n], [count](std::int32_t item) {
      return item >= 0 && static_cast<std::size_t>(item) < count;
    });
    fllm::require(inside, "a user has an item without a vector", "items that have one");
    fllm::writing::sum_user_rows(kernels().writing, vectors, count, dim, {items, starts, n}, factors, rows);
  });
}
