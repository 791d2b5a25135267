// The engine `tensorrt` on the emulated GPU and the emulated TensorRT, whose scores err: the same users and scores as
// the CPU's engine, bit for bit; graphs are used; and what happens when something is missing, foreign or too small.
#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <fllm/fllm.hpp>
#include <string>
#include <thread>

#include "check.hpp"
#include "engine_cases.hpp"
#include "tensorrt/emulation/plan_file.hpp"

using namespace engine_cases;

namespace {

using fllm::tensorrt::emulation::Header;
using fllm::tensorrt::emulation::HeadPlan;

constexpr std::int64_t kPlanK = 256, kMostBatch = 8, kChunk = 1024;
constexpr double kFp8Tolerance = 1e-3;  // of a logsumexp that 8-bit floating sums make up

HeadPlan plan_of(const RandomTable::Kind& kind, std::int64_t most_rows) {
  HeadPlan plan;
  plan.fp8 = kind.fp8;
  plan.bias = kind.bias;
  plan.dim = kDim;
  plan.k = kPlanK;
  plan.profiles = {{1, 1, kChunk, most_rows}, {1, kMostBatch, kChunk, most_rows}};
  return plan;
}

fllm::TableOptions with_plan(const RandomTable& table, const std::string& bytes, std::uint64_t gpu_bytes = 0) {
  table.directory().write("head.plan", bytes);
  fllm::TableOptions options;
  options.engine = "tensorrt";
  options.plan = table.directory().path("head.plan");
  options.gpu_bytes = gpu_bytes;
  return options;
}

// What the emulations count.
std::uint64_t counted(const char* variable, const char* function) {
  void* const library = dlopen(std::getenv(variable), RTLD_NOW | RTLD_LOCAL);
  return reinterpret_cast<std::uint64_t (*)()>(dlsym(library, function))();
}
struct Counts {
  std::uint64_t launched = counted("FLLM_CUDA_LIBRARY", "fllm_emulated_graph_launches");
  std::uint64_t enqueued = counted("FLLM_TENSORRT_LIBRARY", "fllm_emulated_enqueued");
  std::uint64_t captured = counted("FLLM_TENSORRT_LIBRARY", "fllm_emulated_captured");

  Counts operator-(const Counts& before) const {
    return {launched - before.launched, enqueued - before.enqueued, captured - before.captured};
  }
};

void searches_agree(const fllm::Table& gpu, const fllm::Table& cpu, std::size_t items, double tolerance,
                    float factor = 1) {
  std::vector<float> z = item_vectors(items);
  for (float& x : z) x *= factor;
  for (const std::size_t k : {std::size_t{1}, std::size_t{100}, static_cast<std::size_t>(kPlanK)}) {
    fllm::SearchOptions options;
    options.k = k;
    same_answer(gpu.search(z, items, options), cpu.search(z, items, options), tolerance);
    options.log_probs = FLLM_LOG_PROBS_NONE;
    same_answer(gpu.search(z, items, options), cpu.search(z, items, options), tolerance);
  }
}

void engines_agree(const RandomTable::Kind& kind, std::int64_t most_rows, std::uint64_t gpu_bytes,
                   const std::vector<std::size_t>& batches) {
  const RandomTable table(kind);
  const fllm::Table gpu = table.open(with_plan(table, written(plan_of(kind, most_rows)), gpu_bytes));
  const fllm::Table cpu = table.open({});
  CHECK(std::string(gpu.describe().isa) == "sm_80");
  for (const std::size_t items : batches) searches_agree(gpu, cpu, items, kind.fp8 ? kFp8Tolerance : 1e-5);
}

// Each block runs once uncaptured, is captured the second time, and launched from then on.
void graphs_are_used() {
  const RandomTable::Kind kind{{4500, 3000, 3500}};
  const RandomTable table(kind);
  fllm::SearchOptions options;
  const std::vector<float> z = item_vectors(3);
  const auto passes = [&](const fllm::Table& gpu, int n) {
    const Counts before;
    for (int i = 0; i < n; ++i) gpu.search(z, 3, options);
    return Counts() - before;
  };
  const std::uint64_t blocks = 11;  // of 1024 rows
  const fllm::Table resident = table.open(with_plan(table, written(plan_of(kind, kChunk))));
  const Counts first = passes(resident, 1), second = passes(resident, 1), more = passes(resident, 2);
  CHECK(first.enqueued == blocks && first.captured == 0 && first.launched == 0);
  CHECK(second.enqueued == 0 && second.captured == blocks && second.launched == blocks);
  CHECK(more.enqueued == 0 && more.captured == 0 && more.launched == 2 * blocks);
  // Streamed blocks lie in two places, a graph each; the last block, which has padding, has one of its own.
  const fllm::Table streamed = table.open(with_plan(table, written(plan_of(kind, kChunk)), 280000));
  const Counts all = passes(streamed, 3);
  CHECK(all.captured > 3 && all.captured < blocks);
  CHECK(all.enqueued == all.captured && all.launched == 3 * blocks - all.enqueued);
}

// What a plan reads on the host is kept in its graphs.
void inputs_on_the_host_are_given() {
  const RandomTable::Kind kind{{4500, 3000}, true, false, 0};
  const RandomTable table(kind);
  HeadPlan plan = plan_of(kind, 2 * kChunk);
  plan.valid_rows_on_host = true;
  const fllm::Table cpu = table.open({});
  for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{270000}}) {
    searches_agree(table.open(with_plan(table, written(plan), bytes)), cpu, 2, 1e-5);
  }
}

// Searches of several threads share passes, whatever their K.
void searches_share_passes() {
  const RandomTable::Kind kind{{4500, 3000}};
  const RandomTable table(kind);
  fllm::TableOptions options = with_plan(table, written(plan_of(kind, 2 * kChunk)));
  options.batch_window = std::chrono::milliseconds(20);
  const fllm::Table gpu = table.open(options), cpu = table.open({});
  const std::vector<float> z = item_vectors(3);
  std::vector<fllm::Answer> found(4);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < found.size(); ++i) {
    threads.emplace_back([&, i] {
      fllm::SearchOptions wanted;
      wanted.k = 1 + 80 * i;
      found[i] = gpu.search(z, 3, wanted);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < found.size(); ++i) {
    fllm::SearchOptions wanted;
    wanted.k = 1 + 80 * i;
    same_answer(found[i], cpu.search(z, 3, wanted));
  }
}

// Many rows of equal scores: no block is proven by its K best, and halves end at single chunks.
void ties_are_settled() {
  for (const bool fp8 : {false, true}) {
    const RandomTable::Kind kind{{5000, 3600}, true, false, 0, fp8, 3};
    engines_agree(kind, 4 * kChunk, 0, {1, 3});
    engines_agree(kind, 4 * kChunk, 300000, {1});
  }
  const RandomTable::Kind kind{{4500, 3000, 3500}, false, false, 0, false, 700};
  engines_agree(kind, 8 * kChunk, 0, {2});
  engines_agree(kind, 2 * kChunk, 320000, {2});
  // Halves are the GPU's work, and none is done where nothing is in doubt.
  const RandomTable tied({{11000}, false, false, 0, false, 9}), plain({{11000}});
  for (const RandomTable* table : {&tied, &plain}) {
    const fllm::Table gpu = table->open(with_plan(*table, written(plan_of(kind, 8 * kChunk))));
    const Counts before;
    gpu.search(item_vectors(1), 1);
    const std::uint64_t blocks = 2, enqueued = (Counts() - before).enqueued;
    CHECK(table == &tied ? enqueued > blocks : enqueued == blocks);
  }
}

// Scores beyond what float32 holds of them, and items of nothing but zeros.
void extremes_agree() {
  const RandomTable::Kind kind{{2100}, false, false, 0};
  const RandomTable table(kind);
  const fllm::Table gpu = table.open(with_plan(table, written(plan_of(kind, 4 * kChunk)))), cpu = table.open({});
  for (const float factor : {1e-30f, 1e-10f, 300.0f, 1e20f, 0.0f}) searches_agree(gpu, cpu, 2, 1e-5, factor);
}

void a_budget_cuts() {
  const RandomTable::Kind kind{{4500, 3000, 3500}};
  const RandomTable table(kind);
  const fllm::Table gpu = table.open(with_plan(table, written(plan_of(kind, 2 * kChunk))));
  fllm::SearchOptions options;
  options.k = 10;
  options.budget = std::chrono::duration<double, std::milli>(1e-6);
  const fllm::Answer cut = gpu.search(item_vectors(1), 1, options);
  CHECK(cut.rows_scored[0] == 2 * kChunk);
  CHECK(cut.complete[0] == 0 && cut.log_probs_exact[0] == 0);
  for (const std::int64_t id : cut.user_ids) CHECK(id >= 50 && id < 50 + 2 * kChunk);
  // All rows of one block are scored, and there is no time to prove that none of equal scores is missing.
  const RandomTable::Kind equal{{1000}, false, false, 0, false, 1};
  const RandomTable ties(equal);
  const fllm::Table tied = ties.open(with_plan(ties, written(plan_of(equal, 2 * kChunk))));
  const fllm::Answer unproven = tied.search(item_vectors(2), 2, options);
  CHECK(unproven.rows_scored[1] == 1000 && unproven.complete[1] == 0 && unproven.log_probs_exact[1] == 1);
  options.budget.reset();
  CHECK(tied.search(item_vectors(2), 2, options).complete[1] == 1);
  fllm_cancel cancel{1};
  options.cancel = &cancel;
  CHECK(status_of([&] { gpu.search(item_vectors(1), 1, options); }, "cancelled") == FLLM_CANCELLED);
}

void what_it_cannot_do_is_told() {
  const RandomTable::Kind kind{{3000}};
  const RandomTable table(kind);
  const std::string plan = written(plan_of(kind, 4 * kChunk));
  const fllm::Table gpu = table.open(with_plan(table, plan));
  const std::vector<float> z = item_vectors(1);
  const auto refused = [&](const fllm::SearchOptions& options, const std::string& words) {
    CHECK(status_of([&] { gpu.search(z, 1, options); }, words) == FLLM_USAGE);
  };
  fllm::SearchOptions options;
  options.k = kPlanK + 1;
  refused(options,
          "returns 256 users per tile; expected at most 256. Build a plan with a larger K: fllm-export plan BUNDLE "
          "-k 257");
  options.k = 10;
  options.mode = FLLM_SAMPLE;
  refused(options, "the engine 'tensorrt' cannot sample users. Use the engine 'cuda' or 'native'");
  options.mode = FLLM_TOPK;
  const std::int64_t some[] = {51};
  const fllm::Filter filter = gpu.filter(some, FLLM_ALLOW);
  options.filter = &filter;
  refused(options, "cannot filter users");
  fllm::TableOptions open = with_plan(table, plan);
  open.gpus = 2;
  CHECK(status_of([&] { table.open(open); }, "cannot share a table among 2 GPUs") == FLLM_USAGE);
  open.gpus = 1;
  open.engine = "cuda";
  CHECK(status_of([&] { table.open(open); }, "does not run plans, and a plan is given") == FLLM_USAGE);
  open.engine = "tensorrt";
  open.plan = "";
  CHECK(status_of([&] { table.open(open); }, "needs a plan, and none is given") == FLLM_USAGE);
  // The options of a program that was compiled before there were plans.
  fllm_table_options old = FLLM_TABLE_OPTIONS_INIT;
  old.size = offsetof(fllm_table_options, plan);
  old.plan = "not to be read";
  old.engine = "native";
  fllm_table* handle = nullptr;
  fllm_error error;
  CHECK(fllm_table_open(table.directory().path().c_str(), &old, &handle, &error) == FLLM_OK);
  fllm_table_release(handle);
}

void foreign_plans_are_told() {
  const RandomTable::Kind kind{{3000}};
  const RandomTable table(kind);
  const HeadPlan good = plan_of(kind, 4 * kChunk);
  const auto refused = [&](const std::string& bytes, fllm_status status, const std::string& words) {
    CHECK(status_of([&] { table.open(with_plan(table, bytes)); }, words) == status);
  };
  const auto changed = [&](auto&& change) {
    HeadPlan plan = good;
    change(plan);
    return written(plan);
  };
  const auto doctored = [&](auto&& change) {
    Header header;
    change(header);
    return written(good, header);
  };
  refused(changed([](HeadPlan& p) { p.dim = 64; }), FLLM_USAGE, "is for rows of dimension 64; expected 32");
  refused(changed([](HeadPlan& p) { p.fp8 = true; }), FLLM_USAGE, "of another codec; expected one for int8 rows");
  refused(changed([](HeadPlan& p) { p.bias = true; }), FLLM_USAGE, "is for tables with a bias");
  refused(changed([](HeadPlan& p) { p.profiles.clear(); }), FLLM_BUNDLE, "allows no tile");
  refused(changed([](HeadPlan& p) { p.k = 5000; }), FLLM_BUNDLE, "allows no tile");
  refused(doctored([](Header& h) { h.version[1] = 6; }), FLLM_HARDWARE,
          "was built by tensorrt_rtx 1.6.1.116; expected tensorrt_rtx 1.7.1.116");
  refused(doctored([](Header& h) { h.architectures = 8 + 16; }), FLLM_HARDWARE,
          "was built for sm89, sm120; expected sm80, the GPU here. Run: fllm-export plan BUNDLE");
  refused(doctored([](Header& h) { h.second_magic[0] = 'x'; }), FLLM_BUNDLE, "damaged header");
  refused(doctored([](Header& h) { h.magic[0] = 'x'; }), FLLM_HARDWARE, "is not a plan of tensorrt_rtx");
  refused(written(good).substr(0, 60), FLLM_BUNDLE, "has 60 bytes; expected");
  refused(written(good).substr(0, 20), FLLM_BUNDLE, "at least a header");
  refused("", FLLM_BUNDLE, "cannot be read");
  refused(doctored([](Header& h) { h.body = 1; }), FLLM_BUNDLE, "the bytes are not a plan's");
}

void missing_libraries_are_told() {
  const RandomTable::Kind kind{{3000}};
  const RandomTable table(kind);
  const std::string library = std::getenv("FLLM_TENSORRT_LIBRARY");
  const auto refused = [&](const std::string& words) {
    const auto open = [&] { table.open(with_plan(table, written(plan_of(kind, 4 * kChunk)))); };
    CHECK(status_of(open, words) == FLLM_HARDWARE);
  };
  setenv("FLLM_TENSORRT_LIBRARY", "nowhere.so", 1);
  refused("the engine 'tensorrt' cannot run: nowhere.so");
  setenv("FLLM_TENSORRT_LIBRARY", std::getenv("FLLM_CUDA_LIBRARY"), 1);
  refused("is not libfllm_tensorrt");
  setenv("FLLM_TENSORRT_LIBRARY", library.c_str(), 1);
}

void failures_are_told() {
  const RandomTable::Kind kind{{4500, 3000}};
  const RandomTable table(kind);
  const std::string plan = written(plan_of(kind, 4 * kChunk));
  setenv("FLLM_EMULATED_GPUS", "0", 1);
  CHECK(status_of([&] { table.open(with_plan(table, plan)); }, "cudaErrorNoDevice") == FLLM_HARDWARE);
  unsetenv("FLLM_EMULATED_GPUS");
  CHECK(status_of([&] { table.open(with_plan(table, plan, 100000)); }, "too little free memory") == FLLM_MEMORY);
  setenv("FLLM_EMULATED_GPU_BYTES", "3000", 1);
  CHECK(status_of([&] { table.open(with_plan(table, plan)); }, "GPU memory") == FLLM_MEMORY);
  unsetenv("FLLM_EMULATED_GPU_BYTES");
  const fllm::Table gpu = table.open(with_plan(table, plan));
  setenv("FLLM_EMULATED_GPU_LAUNCHES", "1", 1);
  const std::vector<float> z = item_vectors(1);
  for (int again = 0; again < 2; ++again) {
    CHECK(status_of([&] { gpu.search(z, 1); }, "GPU 0 (an emulated GPU) failed") == FLLM_HARDWARE);
  }
  unsetenv("FLLM_EMULATED_GPU_LAUNCHES");
  same_answer(gpu.search(z, 1), table.open({}).search(z, 1));
}

}  // namespace

int main() {
  missing_libraries_are_told();
  const RandomTable::Kind plain{{4500, 3000, 3500}}, rich{{4500, 3000, 3500}, true, true, 1};
  const RandomTable::Kind floats{{4500, 3000}, true, true, 0, true}, one_chunk{{700}};
  engines_agree(plain, 8 * kChunk, 0, {1, 3, 8, 11});
  engines_agree(plain, 2 * kChunk, 320000, {1, 5});
  engines_agree(rich, 8 * kChunk, 0, {1, 4});
  engines_agree(rich, kChunk, 330000, {2});
  engines_agree(floats, 4 * kChunk, 0, {1, 2});
  engines_agree(floats, kChunk, 300000, {2});
  engines_agree(one_chunk, 8 * kChunk, 0, {1, 2});
  graphs_are_used();
  inputs_on_the_host_are_given();
  searches_share_passes();
  ties_are_settled();
  extremes_agree();
  a_budget_cuts();
  what_it_cannot_do_is_told();
  foreign_plans_are_told();
  failures_are_told();
  return check::result();
}
