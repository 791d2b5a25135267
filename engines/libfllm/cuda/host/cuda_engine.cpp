#include "cuda_engine.hpp"

#include <algorithm>
#include <iterator>

#include "library.hpp"
#include "search/engines.hpp"
#include "status.hpp"

namespace fllm::cuda {

namespace {

// Tiles cut into `parts` ranges of about as many rows each; none is empty.
std::vector<TileRange> share_out(const Rows& table, std::size_t parts) {
  const std::vector<Tile>& tiles = table.tiles;
  std::vector<TileRange> ranges;
  for (std::size_t first = 0, part = 0; first < tiles.size(); ++part) {
    const std::uint64_t end = table.layout.rows / parts * (part + 1);
    std::size_t last = first + 1;
    while (last < tiles.size() && (part + 1 == parts || tiles[last].first_row < end)) ++last;
    ranges.push_back({first, last});
    first = last;
  }
  return ranges;
}

}  // namespace

CudaEngine::CudaEngine(const Rows& table, const DeviceOptions& options) : rows_(table.layout.rows) {
  if (table.layout.dim > kMaxDim) {
    throw Error(Status::usage,
                sentence("the engine 'cuda' cannot scan rows of dimension " + std::to_string(table.layout.dim),
                         "at most " + std::to_string(kMaxDim), "Use the engine 'native'"));
  }
  const Driver& driver = load_driver();
  const std::size_t wanted = std::max<std::uint32_t>(1, options.devices);
  const int there = count_devices(driver);
  if (wanted > static_cast<std::size_t>(there)) {
    const std::string found =
        std::to_string(wanted) + " GPUs are requested, and " + std::to_string(there) + " are available";
    throw Error(Status::hardware, sentence(found));
  }
  const std::vector<TileRange> ranges = share_out(table, wanted);
  scans_.resize(ranges.size());
  pool_ = std::make_unique<Pool>(ranges.size(), false);
  pool_->run(ranges.size(), [&](std::size_t number) {
    scans_[number] =
        std::make_unique<DeviceScan>(driver, static_cast<int>(number), table, ranges[number], options.bytes);
  });
  const DeviceFacts& facts = scans_.front()->device().facts();
  level_ = "sm_" + std::to_string(facts.major) + std::to_string(facts.minor);
}

std::uint64_t CudaEngine::streamed_bytes() const {
  std::uint64_t bytes = 0;
  for (const std::unique_ptr<DeviceScan>& scan : scans_) {
    for (const Piece& piece : scan->table().pieces()) bytes += piece.resident ? 0 : piece.bytes;
  }
  return bytes;
}

std::vector<ItemAnswer> CudaEngine::scan(std::vector<Column> columns) {
  std::vector<std::vector<DeviceAnswer>> found(scans_.size());
  pool_->run(scans_.size(), [&](std::size_t number) { found[number] = scans_[number]->run(columns); });
  std::vector<ItemAnswer> answers;
  for (std::size_t column = 0; column < columns.size(); ++column) {
    answers.push_back(merge(*columns[column].search, found, column));
  }
  return answers;
}

ItemAnswer CudaEngine::merge(const Search& search, std::vector<std::vector<DeviceAnswer>>& found,
                             std::size_t column) const {
  std::vector<Candidate> users;
  LogSumExp denominator;
  std::uint64_t rows = 0;
  for (std::vector<DeviceAnswer>& device : found) {
    std::move(device[column].users.begin(), device[column].users.end(), std::back_inserter(users));
    denominator.add(device[column].denominator.m, device[column].denominator.l);
    rows += device[column].rows_scored;
  }
  ItemAnswer answer = ranked(std::move(users), search.k);
  answer.rows_scored = rows;
  answer.complete = rows == rows_;
  if (search.wants_log_probs()) {
    answer.logsumexp = at_least_of(answer.users, denominator);
    answer.log_probs_exact = answer.complete;
    if (answer.complete) answer.tell_error(0.0, true);
  }
  return answer;
}

}  // namespace fllm::cuda

namespace fllm {

std::unique_ptr<Engine> make_cuda_engine(const Table& table, const EngineOptions& options) {
  const cuda::DeviceOptions gpus{options.gpus, options.gpu_bytes};
  return std::make_unique<cuda::CudaEngine>(cuda::Rows{table.layout(), table.tiles()}, gpus);
}

}  // namespace fllm
