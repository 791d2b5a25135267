#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>

#include "cpu.hpp"
#include "gumbel.hpp"

namespace nb = nanobind;

namespace {

using Ids = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Noise = nb::ndarray<nb::numpy, double, nb::ndim<1>>;

Noise gumbel(std::uint64_t seed, Ids ids) {
  const std::size_t n = ids.shape(0);
  auto noise = std::make_unique<double[]>(n);
  {
    nb::gil_scoped_release release;
    fllm::gumbel(seed, ids.data(), n, noise.get());
  }
  double* data = noise.release();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<double*>(p); });
  return Noise(data, {n}, owner);
}

}  // namespace

NB_MODULE(_core, module) {
  module.doc() = "The native part of fllm-export.";
  module.def("cpu_levels", &fllm::cpu_levels,
             "Return the instruction-set levels usable here, weakest first.");
  module.def("gumbel", &gumbel, nb::arg("seed"), nb::arg("ids"),
             "Return standard Gumbel noise for each int64 id, float64 [n]; equal bits to fllm_export.engines.gumbel.");
}
