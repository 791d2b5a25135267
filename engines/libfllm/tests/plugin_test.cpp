// The layer FllmScan on emulations of TensorRT's interface and of a GPU: rows and scores as defined, bit for bit.
#include "plugin/tile_room.hpp"
#include "plugin/tile_scan.hpp"
#include "plugin_trial.hpp"

namespace {

using namespace trial;

void answers_are_as_defined(const Case& wanted) {
  const Plugin built = plugin_of(static_cast<std::int32_t>(wanted.k));
  const Plugin read = read_again(*built);
  const Plugin attached(runtime_of(*read).attachToContext(nullptr));
  Trial(wanted).run(*attached);
}

void tiles_of_any_kind(bool fp8) {
  answers_are_as_defined({fp8, 9000, 32, 1, 100, 9000, true});
  answers_are_as_defined({fp8, 9000, 16, 3, 100, 8000});
  answers_are_as_defined({fp8, 5000, 48, 40, 10, 4700, true});
  answers_are_as_defined({fp8, 4200, 16, 130, 7, 4200});  // more items than are scanned together
  answers_are_as_defined({fp8, 6000, 32, 5, 1000, 6000, true});
  answers_are_as_defined({fp8, 5000, 19, 4, 50, 4999, true});  // rows of no whole pieces
  answers_are_as_defined({fp8, 700, 1040, 2, 20, 600});        // rows too long for a scan of many
  answers_are_as_defined({fp8, 5000, 16, 2, 5000, 4800, true});
  // Fewer rows than users, and none.
  answers_are_as_defined({fp8, 60, 32, 3, 100, 60, true});
  answers_are_as_defined({fp8, 5000, 32, 3, 600, 500, true});
  answers_are_as_defined({fp8, 5000, 32, 1, 10, 0, true});
  answers_are_as_defined({fp8, 5000, 32, 33, 10, 0});
  answers_are_as_defined({fp8, 300, 32, 2, 10, -1});
  answers_are_as_defined({fp8, 0, 32, 2, 10, 0});
  answers_are_as_defined({fp8, 300, 32, 2, 10, 1000});  // the tile has no more rows
}

void odd_scores() {
  for (const std::size_t items : {1, 34}) {
    // Equal scores: rows decide.
    for (const int largest : {0, 2}) {
      answers_are_as_defined(
          {.fp8 = false, .rows = 5000, .dim = 16, .items = items, .k = 300, .valid = 5000, .largest = largest});
    }
    // Scores far smaller than their biases: what float32 rounds is far greater than what tells rows apart.
    answers_are_as_defined({.fp8 = false,
                            .rows = 6000,
                            .dim = 16,
                            .items = items,
                            .k = 10,
                            .valid = 6000,
                            .bias = true,
                            .row_scale = 1e5f,
                            .cancelled = true});
    for (const bool fp8 : {false, true}) {
      Case late{.fp8 = fp8, .rows = 5000, .dim = 32, .items = items, .k = 10, .valid = 4990};
      late.late = 4800;  // after the first wave
      answers_are_as_defined(late);
      late.late = 100;
      answers_are_as_defined(late);
      answers_are_as_defined(
          {.fp8 = fp8, .rows = 4400, .dim = 32, .items = items, .k = 10, .valid = 4400, .bias = true, .zeros = true});
      // Item vectors whose scale float32 does not hold as it should.
      answers_are_as_defined({.fp8 = fp8,
                              .rows = 6000,
                              .dim = 16,
                              .items = items,
                              .k = 10,
                              .valid = 6000,
                              .magnitude = 1e-40f,
                              .row_scale = 1e6f});
      answers_are_as_defined(
          {.fp8 = fp8, .rows = 4400, .dim = 16, .items = items, .k = 10, .valid = 4400, .magnitude = 1e25f});
    }
  }
}

// Candidates of a wave and those kept before have room even if every row is one.
void every_wave_fits() {
  for (const std::uint32_t items : {1u, 7u, 128u, 5000u}) {
    for (const std::uint32_t k : {1u, 256u, 5000u, 1u << 20}) {
      for (const std::uint64_t rows : {1ull, 4096ull, 65536ull, 3000000ull}) {
        const fllm::plugin::TileRoom room({rows, 64, items, k});
        std::uint64_t before = 0, wave = 0;
        for (; before < rows; before += wave) {
          wave = room.rows_of_wave(before);
          CHECK(wave > 0 && wave <= room.free() && wave <= rows - before);
          CHECK(before > 0 || wave <= std::max(4096u, k));
        }
        CHECK(before == rows);
      }
    }
  }
}

// The workspace of the largest tile holds every smaller one.
void workspaces_grow_with_tiles() {
  using fllm::plugin::workspace_bytes;
  std::size_t before = 0;
  for (std::uint32_t items = 1; items < 1500; ++items) {
    const std::size_t bytes = workspace_bytes({1 << 20, 64, items, 256});
    CHECK(bytes >= before);
    CHECK(bytes >= workspace_bytes({1 << 19, 64, items, 256}));
    CHECK(bytes >= workspace_bytes({1 << 20, 64, items, 100}));
    CHECK(bytes >= workspace_bytes({1 << 20, 32, items, 256}));
    before = bytes;
  }
}

struct Expressions : IExprBuilder {
  const IDimensionExpr* constant(std::int64_t value) noexcept override {
    made.push_back(std::make_unique<IDimensionExpr>(value));
    return made.back().get();
  }
  std::vector<std::unique_ptr<IDimensionExpr>> made;
};

void outputs_have_the_shapes_of_the_head() {
  const Plugin plugin = plugin_of(77);
  IPluginV3OneBuild& build = build_of(*plugin);
  const IDimensionExpr rows(1000), dim(64), items(5);
  const DimsExprs in[] = {{2, {&rows, &dim}}, {1, {&rows}}, {0, {}}, {2, {&items, &dim}}};
  DimsExprs out[4];
  Expressions expressions;
  CHECK(build.getNbOutputs() == 4);
  CHECK(build.getOutputShapes(in, 4, nullptr, 0, out, 4, expressions) == 0);
  for (int i = 0; i < 4; ++i) {
    CHECK(out[i].nbDims == (i < 2 ? 2 : 1));
    CHECK(out[i].d[0] == &items);
    if (i < 2) CHECK(out[i].d[1]->getConstantValue() == 77);
  }
  DataType types[4];
  CHECK(build.getOutputDataTypes(types, 4, nullptr, 0) == 0);
  CHECK(types[0] == DataType::kFLOAT && types[1] == DataType::kINT64 && types[3] == DataType::kFLOAT);
  CHECK(build.getOutputShapes(in, 3, nullptr, 0, out, 4, expressions) != 0);
  CHECK(logged.tells("item_vector is not there"));
}

void formats_are_linear_and_of_one_type_each() {
  const Plugin plugin = plugin_of(10);
  const Trial trial({false, 100, 32, 2, 10, 100, true});
  std::vector<PluginTensorDesc> tensors = trial.inputs();
  for (const PluginTensorDesc& out : trial.outputs()) tensors.push_back(out);
  const auto takes = [&](std::int32_t position, DataType type, TensorFormat format = TensorFormat::kLINEAR) {
    std::vector<DynamicPluginTensorDesc> all = Trial::profile(tensors);
    all[static_cast<std::size_t>(position)].desc.type = type;
    all[static_cast<std::size_t>(position)].desc.format = format;
    return build_of(*plugin).supportsFormatCombination(position, all.data(), 5, 4);
  };
  for (std::int32_t i = 0; i < 9; ++i) {
    CHECK(takes(i, tensors[static_cast<std::size_t>(i)].type));
    CHECK(!takes(i, tensors[static_cast<std::size_t>(i)].type, TensorFormat::kCHW32));
    CHECK(!takes(i, DataType::kHALF));
  }
  CHECK(takes(0, DataType::kFP8) && !takes(3, DataType::kFP8) && !takes(2, DataType::kFLOAT));
}

void what_does_not_fit_is_told() {
  const std::int64_t wide = 10;
  const std::int32_t none = 0;
  const PluginField wrong[] = {{"k", &wide, PluginFieldType::kINT64, 1},
                               {"k", &none, PluginFieldType::kINT32, 1},
                               {"users", &none, PluginFieldType::kINT32, 1}};
  const char* const told[] = {"expected one int32", "expected at least 1", "there is no field k"};
  for (int i = 0; i < 3; ++i) {
    const PluginFieldCollection fields{1, &wrong[i]};
    CHECK(creator().createPlugin("scan", &fields, TensorRTPhase::kBUILD) == nullptr);
    CHECK(logged.tells(told[i]));
  }
  const Plugin plugin = plugin_of(10);
  const auto refuses = [&](std::size_t input, Dims dims, const char* part, std::int32_t count = 5) {
    std::vector<PluginTensorDesc> in = Trial({false, 100, 32, 2, 10, 100, true}).inputs();
    in[input].dims = dims;
    CHECK(runtime_of(*plugin).onShapeChange(in.data(), count, nullptr, 4) != 0);
    CHECK(build_of(*plugin).configurePlugin(Trial::profile(in).data(), count, nullptr, 4) != 0);
    CHECK(logged.tells(part));
  };
  refuses(0, {1, {100}}, "codes are [100]");
  refuses(0, {2, {100, 20000}}, "expected 1 to 16384");
  refuses(1, {1, {99}}, "scales are [99]; expected one for each of 100 rows");
  refuses(2, {1, {1}}, "valid_rows is [1]");
  refuses(3, {2, {2, 31}}, "item_vector is [2, 31]; expected [items, 32]");
  refuses(4, {2, {100, 1}}, "bias is [100, 1]");
  refuses(0, {2, {100, 32}}, "there are 3 inputs", 3);
  CHECK(runtime_of(*plugin).enqueue(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr) != 0);
  CHECK(logged.tells("before its shapes were known"));
}

void names_are_the_same_everywhere() {
  const Plugin plugin = plugin_of(10);
  auto& core = *static_cast<IPluginV3OneCore*>(plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
  CHECK(std::string(core.getPluginName()) == "FllmScan" && std::string(creator().getPluginName()) == "FllmScan");
  CHECK(std::string(core.getPluginVersion()) == "1" && std::string(creator().getPluginVersion()) == "1");
  CHECK(std::string(core.getPluginNamespace()) == "fllm" && std::string(creator().getPluginNamespace()) == "fllm");
  const PluginFieldCollection& fields = *creator().getFieldNames();
  CHECK(fields.nbFields == 1 && std::string(fields.fields[0].name) == "k");
}

}  // namespace

int main() {
  setLoggerFinder(&logged);
  names_are_the_same_everywhere();
  outputs_have_the_shapes_of_the_head();
  formats_are_linear_and_of_one_type_each();
  what_does_not_fit_is_told();
  every_wave_fits();
  workspaces_grow_with_tiles();
  tiles_of_any_kind(false);
  tiles_of_any_kind(true);
  odd_scores();
  return check::result();
}
