// The engine `cuda` on the emulated GPU or a real one: the same users, scores and coverage as the CPU's engine,
// whatever is resident and however rows are ordered. On the emulated one also: two GPUs, and what happens when memory
// or the GPU fails.
#include <cstdlib>
#include <fllm/fllm.hpp>
#include <numeric>
#include <string>

#include "check.hpp"
#include "engine_cases.hpp"
#include "gpu.hpp"

using namespace engine_cases;

namespace {

fllm::Table open(const RandomTable& table, const std::string& engine, std::uint64_t gpu_bytes = 0, unsigned gpus = 1) {
  fllm::TableOptions options;
  options.engine = engine;
  options.gpus = gpus;
  options.gpu_bytes = gpu_bytes;
  return table.open(options);
}

// Searches of every kind on both engines.
void both_agree(const RandomTable& table, std::uint64_t gpu_bytes, unsigned gpus, std::size_t items) {
  const fllm::Table cpu = open(table, "native"), gpu = open(table, "cuda", gpu_bytes, gpus);
  CHECK(std::string(gpu.describe().isa).starts_with("sm_"));
  const std::vector<float> z = item_vectors(items);
  const std::vector<std::uint64_t> seeds = [&] {
    std::vector<std::uint64_t> numbers(items);
    std::iota(numbers.begin(), numbers.end(), 11);
    return numbers;
  }();
  std::vector<std::int64_t> some(table.rows() / 3);
  for (std::size_t i = 0; i < some.size(); ++i) some[i] = static_cast<std::int64_t>(50 + 3 * i);
  const fllm::Filter cpu_filter = cpu.filter(some, FLLM_ALLOW), gpu_filter = gpu.filter(some, FLLM_ALLOW);
  for (const std::size_t k : {std::size_t{1}, std::size_t{100}, static_cast<std::size_t>(table.rows())}) {
    fllm::SearchOptions options;
    options.k = k;
    same_answer(gpu.search(z, items, options), cpu.search(z, items, options));
    options.log_probs = FLLM_LOG_PROBS_NONE;
    same_answer(gpu.search(z, items, options), cpu.search(z, items, options));
    if (k > 100) continue;
    fllm::SearchOptions sampled;
    sampled.k = k;
    sampled.mode = FLLM_SAMPLE;
    sampled.seeds = seeds;
    same_answer(gpu.search(z, items, sampled), cpu.search(z, items, sampled));
    fllm::SearchOptions filtered = options, filtered_by_gpu = options;
    filtered.filter = &cpu_filter;
    filtered_by_gpu.filter = &gpu_filter;
    same_answer(gpu.search(z, items, filtered_by_gpu), cpu.search(z, items, filtered));
  }
}

// Batches that tensor cores scan together: of all sizes, with filters that leave fewer than K, and with scores that
// rise beyond what float32 exponentials bear. The last item of several is nothing but zeros.
void batches_agree(const RandomTable& table, const std::vector<std::size_t>& sizes, float factor) {
  const fllm::Table cpu = open(table, "native"), gpu = open(table, "cuda");
  const std::int64_t few[] = {51, 59, 1000, 4000};
  const fllm::Filter cpu_filter = cpu.filter(few, FLLM_ALLOW), gpu_filter = gpu.filter(few, FLLM_ALLOW);
  for (const std::size_t items : sizes) {
    std::vector<float> z = item_vectors(items);
    for (float& x : z) x *= factor;
    std::fill(z.end() - (items > 2 ? kDim : 0), z.end(), 0.0f);
    fllm::SearchOptions options;
    options.k = 20;
    same_answer(gpu.search(z, items, options), cpu.search(z, items, options));
    options.log_probs = FLLM_LOG_PROBS_NONE;
    fllm::SearchOptions by_gpu = options;
    options.filter = &cpu_filter;
    by_gpu.filter = &gpu_filter;
    same_answer(gpu.search(z, items, by_gpu), cpu.search(z, items, options));
  }
}

void a_budget_cuts(const RandomTable& table) {
  const fllm::Table gpu = open(table, "cuda");
  fllm::SearchOptions options;
  options.k = 10;
  options.budget = std::chrono::duration<double, std::milli>(1e-6);
  const fllm::Answer cut = gpu.search(item_vectors(1), 1, options);
  CHECK(cut.rows_scored[0] > 0 && cut.rows_scored[0] < table.rows());
  CHECK(cut.complete[0] == 0 && cut.log_probs_exact[0] == 0);
  fllm_cancel cancel{1};
  options.cancel = &cancel;
  CHECK(status_of([&] { gpu.search(item_vectors(1), 1, options); }, "cancelled") == FLLM_CANCELLED);
}

// Of two GPUs. What the caller asks for goes before the environment.
void environment_names_gpus(const RandomTable& table) {
  setenv("FLLM_GPUS", "3", 1);
  CHECK(status_of([&] { open(table, "cuda", 0, 0); }, "3") == FLLM_HARDWARE);
  open(table, "cuda", 0, 1);
  for (const char* const wrong : {"0", "-1", "two", "1e3", "99999999999999999999"}) {
    setenv("FLLM_GPUS", wrong, 1);
    CHECK(status_of([&] { open(table, "cuda", 0, 0); }, "FLLM_GPUS is '") == FLLM_USAGE);
  }
  setenv("FLLM_GPUS", "2", 1);
  both_agree(table, 0, 0, 2);
  unsetenv("FLLM_GPUS");
  setenv("FLLM_GPU_BYTES", "3000", 1);
  CHECK(status_of([&] { open(table, "cuda"); }, "too little free memory") == FLLM_MEMORY);
  unsetenv("FLLM_GPU_BYTES");
}

void failures_are_told(const RandomTable& table) {
  setenv("FLLM_EMULATED_GPUS", "0", 1);
  CHECK(status_of([&] { open(table, "cuda"); }, "cudaErrorNoDevice") == FLLM_HARDWARE);
  setenv("FLLM_EMULATED_GPUS", "2", 1);
  CHECK(status_of([&] { open(table, "cuda", 0, 3); }, "3 GPUs are requested, and 2 are available") == FLLM_HARDWARE);
  CHECK(status_of([&] { open(table, "quantum"); }, "there is no engine 'quantum'") == FLLM_USAGE);
  environment_names_gpus(table);
  setenv("FLLM_EMULATED_GPU_BYTES", "3000", 1);
  CHECK(status_of([&] { open(table, "cuda"); }, "too little free memory") == FLLM_MEMORY);
  // There is room for the rows, not for the candidates of a great K; a small one is answered afterwards.
  setenv("FLLM_EMULATED_GPU_BYTES", "1200000", 1);
  const fllm::Table gpu = open(table, "cuda");
  fllm::SearchOptions options;
  options.k = table.rows();
  CHECK(status_of([&] { gpu.search(item_vectors(16), 16, options); }, "more GPU memory") == FLLM_MEMORY);
  options.k = 10;
  const fllm::Answer answer = gpu.search(item_vectors(1), 1, options);
  same_answer(answer, open(table, "native").search(item_vectors(1), 1, options));
  unsetenv("FLLM_EMULATED_GPU_BYTES");
  // A GPU that is lost: every later search says so, and nothing crashes.
  setenv("FLLM_EMULATED_GPU_LAUNCHES", "1", 1);
  for (int again = 0; again < 2; ++again) {
    const auto search = [&] { gpu.search(item_vectors(1), 1, options); };
    CHECK(status_of(search, "GPU 0 (an emulated GPU) failed") == FLLM_HARDWARE);
  }
  unsetenv("FLLM_EMULATED_GPU_LAUNCHES");
  unsetenv("FLLM_EMULATED_GPUS");
}

}  // namespace

int main() {
  const bool emulated = Gpu().device().name().find("an emulated GPU") != std::string::npos;
  const RandomTable plain({{4500, 3000, 3500}, false, false, 0});
  both_agree(plain, 0, 1, 3);
  a_budget_cuts(plain);
  const RandomTable small({{3000, 2900}, true, false, 0});
  batches_agree(small, {2, 33, 130}, 1.0f);
  batches_agree(small, {3}, 300.0f);
  batches_agree(small, {3}, 1e-25f);
  // Ids of their own, a bias; most rows streamed through small places; two GPUs.
  const RandomTable rich({{4500, 3000, 3500}, true, true, 0});
  both_agree(rich, 400000, 1, 2);
  if (emulated) {
    setenv("FLLM_EMULATED_GPUS", "2", 1);
    both_agree(rich, 400000, 2, 2);
  }
  // Rows that get better and better: every wave holds more candidates than there is room for.
  const RandomTable rising({{8000, 12000}, true, false, 1});
  both_agree(rising, 0, 1, 1);
  both_agree(rising, 600000, 1, 1);
  const RandomTable floats({{4500, 3000}, true, true, 0, true});
  both_agree(floats, 0, 1, 2);
  both_agree(floats, 400000, 1, 1);
  const RandomTable small_floats({{3000, 2900}, true, false, 0, true});
  batches_agree(small_floats, {66}, 1.0f);
  // The best rows come last and are better by as little as floats can tell: less than what tensor cores round away.
  const RandomTable alike({.shard_rows = {5900}, .fp8 = true, .alike = true});
  batches_agree(alike, {33}, 1e-3f);
  // Rows in planes: shards that end within a block, ids of their own, most rows streamed, two GPUs, rising scores.
  for (const std::size_t planes : {1, 2}) {
    const RandomTable narrow({.shard_rows = {4503, 3000, 37}, .bias = true, .ids = true, .planes = planes});
    both_agree(narrow, 0, 1, 2);
    both_agree(narrow, 150000, 1, 2);
    if (emulated) both_agree(narrow, 150000, 2, 1);
    const RandomTable rising_planes({.shard_rows = {8000, 12001}, .bias = true, .slope = 1, .planes = planes});
    both_agree(rising_planes, 0, 1, 1);
    const RandomTable small_planes({.shard_rows = {3001, 2900}, .bias = true, .planes = planes});
    batches_agree(small_planes, {33, 130}, 1.0f);
    batches_agree(small_planes, {3}, 300.0f);
  }
  if (emulated) failures_are_told(plain);
  return check::result();
}
