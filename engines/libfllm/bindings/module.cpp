// The Python module `_core`: NumPy arrays in and out without a copy, the GIL released while the library works.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <fllm/fllm.hpp>
#include <memory>
#include <optional>
#include <sstream>

#include "bindings/writing.hpp"

namespace nb = nanobind;

namespace {

using Ids = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Seeds = nb::ndarray<const std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Vectors = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// A NumPy array that owns its memory, and the pointer through which it is filled.
template <typename T>
struct Filled {
  T* data;
  nb::ndarray<nb::numpy, T> array;
};

template <typename T>
Filled<T> make(std::size_t rows, std::size_t columns, int dimensions) {
  T* data = std::make_unique_for_overwrite<T[]>(rows * columns).release();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  const std::size_t shape[2] = {rows, columns};
  return {data, nb::ndarray<nb::numpy, T>(data, static_cast<std::size_t>(dimensions), shape, owner)};
}

std::vector<std::string> cpu_levels() {
  std::string names(fllm_cpu_levels(nullptr, 0), '\0');
  fllm_cpu_levels(names.data(), names.size() + 1);
  std::vector<std::string> levels;
  std::istringstream stream(names);
  for (std::string level; std::getline(stream, level, ',');) levels.push_back(level);
  return levels;
}

nb::list engines() {
  nb::list found;
  for (const fllm_engine_info& engine : fllm::engines()) {
    nb::list codecs;
    std::istringstream names(engine.codecs);
    for (std::string codec; std::getline(names, codec, ',');) codecs.append(codec);
    found.append(nb::make_tuple(engine.name, nb::tuple(codecs), engine.takes_plan != 0));
  }
  return found;
}

nb::object gumbel(std::uint64_t seed, Ids ids) {
  auto noise = make<double>(ids.shape(0), 1, 1);
  fllm_error error;
  {
    nb::gil_scoped_release release;
    fllm::check(fllm_gumbel(seed, ids.data(), ids.shape(0), noise.data, &error), error);
  }
  return noise.array.cast();
}

fllm::Table open(const std::string& directory, unsigned threads, bool pin_threads, bool resident,
                 unsigned batch_window_us, const std::string& engine, unsigned gpus, std::uint64_t gpu_bytes,
                 unsigned part, unsigned parts) {
  nb::gil_scoped_release release;
  const std::chrono::microseconds window(batch_window_us);
  return fllm::Table(directory, {threads, pin_threads, resident, window, {}, engine, gpus, gpu_bytes, {}, part, parts});
}

// user_ids, keys, scores [items, k]; logsumexp, rows_scored, complete, log_probs_exact, log_prob_error,
// log_probs_certified [items]; generation, rows; refined_scores [items, k] or None.
nb::tuple search(const fllm::Table& table, Vectors z, std::size_t k, bool sample, std::optional<Seeds> seeds,
                 bool exact, int log_probs, double budget_ms, const fllm::Filter* filter, std::uint32_t refine,
                 bool refined_scores) {
  const std::size_t items = z.shape(0);
  auto user_ids = make<std::int64_t>(items, k, 2);
  auto keys = make<float>(items, k, 2), scores = make<float>(items, k, 2);
  auto logsumexp = make<double>(items, 1, 1);
  auto rows_scored = make<std::uint64_t>(items, 1, 1);
  auto complete = make<std::uint8_t>(items, 1, 1), log_probs_exact = make<std::uint8_t>(items, 1, 1);
  auto log_prob_error = make<float>(items, 1, 1);
  auto log_probs_certified = make<std::uint8_t>(items, 1, 1);
  std::optional<Filled<float>> refined;
  if (refined_scores) refined = make<float>(items, k, 2);
  fllm::SearchOptions options;
  options.k = k;
  options.mode = sample ? FLLM_SAMPLE : FLLM_TOPK;
  options.exact = exact;
  options.log_probs = static_cast<fllm_log_probs>(log_probs);
  if (budget_ms > 0) options.budget = std::chrono::duration<double, std::milli>(budget_ms);
  if (seeds) options.seeds = {seeds->data(), seeds->shape(0)};
  options.filter = filter;
  options.refine = refine;
  fllm_answer out = FLLM_ANSWER_INIT;
  out.user_ids = user_ids.data;
  out.keys = keys.data;
  out.scores = scores.data;
  out.logsumexp = logsumexp.data;
  out.rows_scored = rows_scored.data;
  out.complete = complete.data;
  out.log_probs_exact = log_probs_exact.data;
  out.log_prob_error = log_prob_error.data;
  out.log_probs_certified = log_probs_certified.data;
  out.refined_scores = refined ? refined->data : nullptr;
  {
    nb::gil_scoped_release release;
    table.search({z.data(), z.size()}, items, options, out);
  }
  return nb::make_tuple(user_ids.array, keys.array, scores.array, logsumexp.array, rows_scored.array, complete.array,
                        log_probs_exact.array, log_prob_error.array, log_probs_certified.array, out.generation,
                        out.rows, refined ? nb::object(refined->array.cast()) : nb::none());
}

nb::dict describe(const fllm::Table& table) {
  const fllm_table_info info = table.describe();
  nb::dict facts;
  facts["rows"] = info.rows;
  facts["dim"] = info.dim;
  facts["generation"] = info.generation;
  facts["bytes"] = info.bytes;
  facts["codec"] = info.codec;
  facts["sketch"] = info.sketch != 0;
  facts["threads"] = info.threads;
  facts["isa"] = info.isa;
  facts["deleted_rows"] = info.deleted_rows;
  facts["recovered"] = info.recovered != 0;
  facts["engine"] = info.engine;
  facts["refinement"] = info.refinement;
  facts["link_exponent"] = info.link_exponent;
  return facts;
}

// The library's exception reaches Python as _core.Error(status, message).
void register_error(nb::module_& module) {
  static nb::object error_type = nb::exception<fllm::Error>(module, "Error", PyExc_RuntimeError);
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const fllm::Error& error) {
      PyErr_SetObject(error_type.ptr(), nb::make_tuple(static_cast<int>(error.status()), error.what()).ptr());
    }
  });
}

}  // namespace

NB_MODULE(_core, module) {
  module.doc() = "libfllm for Python; fllm_export.engines.core gives it the types and errors.";
  // fllm_export/compiled.py has the same number. Raise both when a signature, or what is returned, changes.
  module.attr("interface") = 2;
  register_error(module);
  module.def("cpu_levels", &cpu_levels, "Return the instruction-set levels usable here, weakest first.");
  module.def("engines", &engines, "Return the name, codecs and whether it takes a plan of each engine, default first.");
  module.def("gumbel", &gumbel, nb::arg("seed"), nb::arg("ids"),
             "Return standard Gumbel noise for each int64 id, float64 [n]; equal bits to fllm_export.engines.gumbel.");
  define_writing(module);
  nb::class_<fllm::Filter>(module, "Filter", "Which users of a table may be returned.");
  nb::class_<fllm::Table>(module, "Table", "An open user table; safe to use from many threads at once.")
      .def_static("open", &open, nb::arg("directory"), nb::kw_only(), nb::arg("threads") = 0,
                  nb::arg("pin_threads") = false, nb::arg("resident") = false, nb::arg("batch_window_us") = 0,
                  nb::arg("engine") = "", nb::arg("gpus") = 0, nb::arg("gpu_bytes") = 0, nb::arg("part") = 0,
                  nb::arg("parts") = 0)
      .def(
          "reopen", [](fllm::Table& table) { table.reopen(); }, nb::call_guard<nb::gil_scoped_release>())
      .def("describe", &describe)
      .def(
          "filter",
          [](const fllm::Table& table, Ids ids, bool deny) {
            nb::gil_scoped_release release;
            return table.filter({ids.data(), ids.shape(0)}, deny ? FLLM_DENY : FLLM_ALLOW);
          },
          nb::arg("user_ids"), nb::arg("deny") = false)
      .def("search", &search, nb::arg("z"), nb::arg("k"), nb::kw_only(), nb::arg("sample") = false,
           nb::arg("seeds") = nb::none(), nb::arg("exact") = true, nb::arg("log_probs") = 0, nb::arg("budget_ms") = 0.0,
           nb::arg("filter") = nb::none(), nb::arg("refine") = 0, nb::arg("refined_scores") = false);
}
