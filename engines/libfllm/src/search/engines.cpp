#include "search/engines.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "status.hpp"

namespace fllm {

// Each is defined in the folder of its engine.
std::unique_ptr<Engine> make_cpu_engine(const Table&, const EngineOptions&);
std::unique_ptr<Engine> make_cuda_engine(const Table&, const EngineOptions&);
std::unique_ptr<Engine> make_tensorrt_engine(const Table&, const EngineOptions&);

namespace {

constexpr auto kAll = [] {
  std::array<Codec, std::size(kCodecs)> codecs{};
  for (std::size_t i = 0; i < codecs.size(); ++i) codecs[i] = kCodecs[i].codec;
  return codecs;
}();
constexpr Codec kEightBits[] = {Codec::int8, Codec::fp8};
constexpr Codec kOneScale[] = {Codec::int8, Codec::fp8, Codec::int4row, Codec::int2};  // of eight bits or fewer

constexpr EngineKind kEngines[] = {
    // name, codecs, whether it takes a plan, serves refinement rows, leaves deleted rows out, serves every link, maker
    {"native", kAll, false, true, true, true, make_cpu_engine},
    {"cuda", kOneScale, false, false, false, false, make_cuda_engine},
    {"tensorrt", kEightBits, true, false, false, false, make_tensorrt_engine},
};

// "'native', 'cuda' or 'tensorrt'"
std::string one_of(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    text += (i == 0 ? "'" : i + 1 == names.size() ? " or '" : ", '") + names[i] + "'";
  }
  return text;
}

template <class Holds>
std::string engines_that(Holds holds) {
  std::vector<std::string> names;
  for (const EngineKind& kind : kEngines) {
    if (holds(kind)) names.emplace_back(kind.name);
  }
  return one_of(names);
}

[[noreturn]] void refuse(const std::string& found, const std::string& expected, const std::string& fix = "") {
  throw Error(Status::usage, sentence(found, expected, fix));
}

bool serves(const EngineKind& kind, Codec codec) {
  return std::find(kind.codecs.begin(), kind.codecs.end(), codec) != kind.codecs.end();
}

}  // namespace

std::span<const EngineKind> engine_kinds() { return kEngines; }

const EngineKind& find_engine(const std::string& name) {
  if (name.empty()) return kEngines[0];
  for (const EngineKind& kind : kEngines) {
    if (name == kind.name) return kind;
  }
  refuse("there is no engine '" + name + "'", engines_that([](const EngineKind&) { return true; }));
}

void EngineKind::check(const EngineOptions& options) const {
  const std::string self = std::string("the engine '") + name + "'";
  if (takes_plan && options.plan.empty()) {
    refuse(self + " needs a plan, and none is given", "the path of a head plan", "Build one: fllm-export plan BUNDLE");
  }
  if (!takes_plan && !options.plan.empty()) {
    refuse(self + " does not run plans, and a plan is given",
           "the engine " + engines_that([](const EngineKind& kind) { return kind.takes_plan; }) + ", or no plan");
  }
}

std::unique_ptr<Engine> EngineKind::open(const Table& table, const EngineOptions& options) const {
  const Codec codec = table.layout().codec;
  if (table.refinement() != nullptr && !refines) {
    refuse("the engine '" + std::string(name) + "' does not read refinement rows, which this table has",
           "a table without them",
           "Use the engine " + engines_that([](const EngineKind& kind) { return kind.refines; }));
  }
  if (!skips_deleted && !table.tombstones().empty()) {
    refuse("the engine '" + std::string(name) + "' cannot scan a table with deleted rows", "a table without",
           "Compact it (fllm-export users compact TABLE), or use the engine " +
               engines_that([](const EngineKind& kind) { return kind.skips_deleted; }));
  }
  if (!links && !table.layout().link.exponential()) {
    refuse("the engine '" + std::string(name) + "' computes exponentials, and the link of this table is a power",
           "a table whose link is the exponential",
           "Use the engine " + engines_that([](const EngineKind& kind) { return kind.links; }));
  }
  if (serves(*this, codec)) return make(table, options);
  std::vector<std::string> served;
  for (const Codec each : codecs) served.emplace_back(codec_name(each));
  refuse("the engine '" + std::string(name) + "' cannot scan " + codec_name(codec) + " rows",
         "a table of codec " + one_of(served),
         "Use the engine " + engines_that([codec](const EngineKind& kind) { return serves(kind, codec); }));
}

}  // namespace fllm
