#include "bindings/writing.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <fllm/fllm.hpp>
#include <optional>
#include <string>

#include "write/writing.h"

namespace nb = nanobind;

namespace {

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Stored = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<std::uint16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Places = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Starts = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Factors64 = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Order = nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Calls a function of the library without the GIL; its failure becomes an exception.
template <typename Call>
void run(Call call) {
  fllm_error error;
  nb::gil_scoped_release release;
  fllm::check(call(&error), error);
}

std::size_t check(Matrix rows) {
  std::size_t first = 0;
  run([&](fllm_error* e) { return fllm_write_check(rows.data(), rows.shape(0), rows.shape(1), &first, e); });
  return first;
}

void encode(const std::string& codec, Matrix rows, Bytes codes, std::optional<Bytes> groups, Floats scales) {
  run([&](fllm_error* e) {
    return fllm_write_encode(codec.c_str(), rows.data(), rows.shape(0), rows.shape(1), codes.data(),
                             groups ? groups->data() : nullptr, scales.data(), e);
  });
}

void decode(const std::string& codec, Stored codes, std::optional<Stored> groups, Numbers scales, Rows rows) {
  run([&](fllm_error* e) {
    return fllm_write_decode(codec.c_str(), codes.data(), groups ? groups->data() : nullptr, scales.data(),
                             rows.shape(0), rows.shape(1), rows.data(), e);
  });
}

void features(Matrix rows, Matrix directions, Rows points) {
  run([&](fllm_error* e) {
    return fllm_write_features(rows.data(), rows.shape(0), rows.shape(1), directions.data(), directions.shape(0),
                               points.data(), e);
  });
}

void order(Matrix points, std::size_t tile_rows, Order rows) {
  run([&](fllm_error* e) { return fllm_write_order(points.data(), points.shape(0), tile_rows, rows.data(), e); });
}

std::size_t tiling(Matrix points, std::size_t tile_rows, Order rows, Order ends) {
  std::size_t tiles = 0;
  run([&](fllm_error* e) {
    return fllm_write_tiling(points.data(), points.shape(0), tile_rows, rows.data(), ends.data(), &tiles, e);
  });
  return tiles;
}

void bounds(Matrix rows, std::optional<Numbers> bias, std::size_t tile_rows, Rows directions, Rows extents) {
  run([&](fllm_error* e) {
    return fllm_write_bounds(rows.data(), rows.shape(0), rows.shape(1), bias ? bias->data() : nullptr, tile_rows,
                             directions.data(), extents.data(), e);
  });
}

void sketch(Matrix rows, Matrix basis, double defect, double snapped, Bytes coarse, Factors coarse_factors, Bytes fine,
            Factors fine_factors) {
  run([&](fllm_error* e) {
    return fllm_write_sketch(rows.data(), rows.shape(0), rows.shape(1), basis.data(), basis.shape(0), defect, snapped,
                             coarse.data(), coarse_factors.data(), fine.data(), fine_factors.data(), e);
  });
}

void user_rows(Matrix vectors, Places items, Starts starts, Factors64 factors, Rows rows) {
  run([&](fllm_error* e) {
    return fllm_write_user_rows(vectors.data(), vectors.shape(0), vectors.shape(1), items.data(), starts.data(),
                                rows.shape(0), factors.data(), rows.data(), e);
  });
}

}  // namespace

void define_writing(nb::module_& module) {
  nb::module_ writing =
      module.def_submodule("writing", "The inner loops of fllm_export.table.native, into given arrays.");
  writing.def("check", &check);
  writing.def("encode", &encode, nb::arg("codec"), nb::arg("rows"), nb::arg("codes"), nb::arg("groups").none(),
              nb::arg("scales"));
  writing.def("decode", &decode, nb::arg("codec"), nb::arg("codes"), nb::arg("groups").none(), nb::arg("scales"),
              nb::arg("rows"));
  writing.def("features", &features);
  writing.def("order", &order);
  writing.def("tiling", &tiling);
  writing.def("bounds", &bounds, nb::arg("rows"), nb::arg("bias").none(), nb::arg("tile_rows"), nb::arg("directions"),
              nb::arg("extents"));
  writing.def("sketch", &sketch);
  writing.def("user_rows", &user_rows);
}
