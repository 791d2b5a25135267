#include "tensorrt_engine.hpp"

#include "cuda/host/library.hpp"
#include "library.hpp"
#include "search/engines.hpp"
#include "status.hpp"

namespace fllm::tensorrt {

namespace {

constexpr std::size_t kProposalBytes = 5 * 24;  // of a place of K: proposals are dropped when there are so many

const cuda::Driver& checked_driver() {
  const cuda::Driver& driver = cuda::load_driver();
  cuda::count_devices(driver);  // throws when there are none
  return driver;
}

[[noreturn]] void cannot(const std::string& what) {
  throw Error(Status::usage, sentence("the engine 'tensorrt' cannot " + what, "", "Use the engine 'cuda' or 'native'"));
}

}  // namespace

TensorRtEngine::TensorRtEngine(const cuda::Rows& table, const kernels::Kernels& kernels, const PlanOptions& options)
    : layout_(table.layout), scan_(checked_driver(), load_plan_driver(), table, kernels, options) {
  const cuda::DeviceFacts& facts = scan_.device().facts();
  level_ = "sm_" + std::to_string(facts.major) + std::to_string(facts.minor);
}

void TensorRtEngine::check(const Search& search) const {
  if (search.mode == Mode::sample) cannot("sample users");
  if (search.filter != nullptr) cannot("filter users");
  const std::size_t most = scan_.plan().k();
  if (search.k <= most) return;
  throw Error(Status::usage,
              sentence("k is " + std::to_string(search.k) + ", and " + scan_.plan().path() + " returns " +
                           std::to_string(most) + " users per tile",
                       "at most " + std::to_string(most),
                       "Build a plan with a larger K: fllm-export plan BUNDLE -k " + std::to_string(search.k)));
}

std::size_t TensorRtEngine::candidate_bytes(std::size_t k) const {
  return std::max(k, scan_.plan().k()) * kProposalBytes;
}

std::vector<ItemAnswer> TensorRtEngine::scan(std::vector<Column> columns) {
  std::vector<WholeItem> items;
  for (const Column& column : columns) {
    items.emplace_back(layout_.codec, column.search->z + column.item * layout_.dim, layout_.dim);
  }
  const HeadScan::Answer found = scan_.run(columns, items);
  std::vector<ItemAnswer> answers;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const Search& search = *columns[i].search;
    ItemAnswer answer = ranked(found.items[i].best(), search.k);
    answer.rows_scored = found.rows;
    answer.complete = found.rows == layout_.rows && found.proven[i];
    if (search.wants_log_probs()) {
      answer.logsumexp = at_least_of(answer.users, found.items[i].denominator());
      answer.log_probs_exact = found.rows == layout_.rows && found.summed[i];
      if (answer.log_probs_exact) answer.tell_error(0.0, true);
    }
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace fllm::tensorrt

namespace fllm {

std::unique_ptr<Engine> make_tensorrt_engine(const Table& table, const EngineOptions& options) {
  if (options.gpus > 1) {
    throw Error(Status::usage,
                sentence("the engine 'tensorrt' cannot share a table among " + std::to_string(options.gpus) + " GPUs",
                         "one GPU", "Use the engine 'cuda'"));
  }
  const tensorrt::PlanOptions plan{options.plan, options.gpu_bytes};
  return std::make_unique<tensorrt::TensorRtEngine>(cuda::Rows{table.layout(), table.tiles()}, *options.kernels, plan);
}

}  // namespace fllm
