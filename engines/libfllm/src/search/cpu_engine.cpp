#include "search/cpu_engine.hpp"

#include <algorithm>

#include "search/engines.hpp"
#include "search/pass.hpp"

namespace fllm {

namespace {

constexpr std::size_t kColumns = 256;                      // more would not read the table less often
constexpr std::size_t kTileBounds = std::size_t{1} << 26;  // of all columns at most

}  // namespace

std::unique_ptr<Engine> make_cpu_engine(const Table& table, const EngineOptions& options) {
  return std::make_unique<CpuEngine>(table, *options.kernels, options.threads, options.pin_threads);
}

CpuEngine::CpuEngine(const Table& table, const kernels::Kernels& kernels, std::size_t threads, bool pin_threads)
    : table_(table), kernels_(kernels), pool_(threads, pin_threads), level_(kernels.isa) {}

bool CpuEngine::alike(const Search& a, const Search& b) const {
  return Engine::alike(a, b) && Pass::sums_rows(table_, a) == Pass::sums_rows(table_, b);
}

std::vector<ItemAnswer> CpuEngine::scan(std::vector<Column> columns) {
  return Pass(table_, kernels_, std::move(columns)).run(pool_, [this]() -> const Panel& {
    if (!panel_) panel_.emplace(table_);
    return *panel_;
  });
}

std::size_t CpuEngine::most_columns() const {
  return std::clamp<std::size_t>(kTileBounds / table_.tiles().size(), 1, kColumns);
}

std::size_t CpuEngine::candidate_bytes(std::size_t k) const {
  return pool_.threads() * (k + k / 2) * sizeof(Candidate);
}

}  // namespace fllm
