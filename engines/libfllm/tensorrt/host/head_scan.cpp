#include "head_scan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "search/engine.hpp"

namespace fllm::tensorrt {

namespace {

constexpr std::uint64_t kSpareBytes = std::uint64_t{256} << 20;  // for contexts and graphs

std::uint64_t row_bytes(const Layout& layout) { return layout.dim + sizeof(float) * (layout.bias ? 2 : 1); }

bool has_ended(const Search& search) { return search.is_cancelled() || search.expired(); }

// Less `taken`, as far as there is so much.
std::uint64_t less(std::uint64_t bytes, std::uint64_t taken) { return bytes - std::min(bytes, taken); }

}  // namespace

HeadScan::HeadScan(const cuda::Driver& cuda_driver, const PlanDriver& plan_driver, const cuda::Rows& table,
                   const kernels::Kernels& kernels, const PlanOptions& options)
    : device_(cuda_driver, 0),
      plan_(plan_driver, device_, options.plan, table.layout),
      lanes_{Lane(plan_), Lane(plan_)},
      sizes_(plan_, lanes_[0], table.layout.rows, row_bytes(table.layout), limit(cuda_driver, options.bytes)),
      table_(made_table(cuda_driver, table, kernels, options.bytes)),
      exact_(table) {}

// After a failure work may be under way, which uses the memory that goes now.
HeadScan::~HeadScan() {
  for (const Lane& lane : lanes_) device_.driver().finish(lane.stream().get());
}

// What may be used beside that which the plan and the lanes have taken since the GPU was opened.
std::uint64_t HeadScan::limit(const cuda::Driver& driver, std::uint64_t bytes) const {
  const std::uint64_t free = cuda::Device(driver, 0).facts().free_bytes;
  const std::uint64_t taken = less(device_.facts().free_bytes, free);
  const std::uint64_t usable = bytes == 0 ? free : std::min(less(bytes, taken), free);
  return less(usable, std::min(kSpareBytes, usable / 8));
}

PlanTable HeadScan::made_table(const cuda::Driver& driver, const cuda::Rows& table, const kernels::Kernels& kernels,
                               std::uint64_t bytes) {
  for (Lane& lane : lanes_) lane.reserve(sizes_.scratch_bytes());
  return PlanTable(device_, table, kernels, {sizes_.step(), sizes_.streamed_rows(), limit(driver, bytes)});
}

HeadScan::Answer HeadScan::run(const std::vector<Column>& columns, const std::vector<WholeItem>& items) {
  device_.use();
  Answer answer;
  std::vector<const WholeItem*> all;
  for (std::size_t i = 0; i < items.size(); ++i) {
    answer.items.emplace_back(items[i], columns[i].search->k, exact_);
    all.push_back(&items[i]);
  }
  for (Lane& lane : lanes_) lane.set_items(all, sizes_.batch_for(items.size()));
  answer.proven.assign(items.size(), true);
  answer.summed.assign(items.size(), true);
  doubts_.clear();
  score_blocks(columns, answer);
  for (ItemSearch& search : answer.items) search.rescore();
  settle_doubts(columns, answer);
  return answer;
}

void HeadScan::settle_doubts(const std::vector<Column>& columns, Answer& answer) {
  std::size_t in_lane = columns.size();  // the item that the first lane holds alone
  for (const Doubt& doubt : doubts_) {
    ItemSearch& search = answer.items[doubt.item];
    const Search& wanted = *columns[doubt.item].search;
    if (!doubt.sum && search.rules_out(doubt.upper)) continue;
    if (has_ended(wanted)) {
      answer.proven[doubt.item] = answer.proven[doubt.item] && search.rules_out(doubt.upper);
      answer.summed[doubt.item] = answer.summed[doubt.item] && !doubt.sum;
    } else if (doubt.sum) {
      search.score_all(doubt.block, true);
    } else {
      if (in_lane != doubt.item) lanes_[0].set_items({&search.item()}, sizes_.batch_for(1));
      in_lane = doubt.item;
      if (!settle(search, wanted, doubt.block)) answer.proven[doubt.item] = false;
    }
  }
}

const HeadScan::Pieces& HeadScan::pieces_for(std::size_t batch) {
  const auto known = pieces_.find(batch);
  if (known != pieces_.end()) return known->second;
  Pieces pieces{table_.blocks(sizes_.rows_for(batch)), {}};
  for (const Block& block : pieces.blocks) pieces.bounds.push_back(table_.bounds(block));
  return pieces_.emplace(batch, std::move(pieces)).first->second;
}

// Two blocks are on their way at once, one a lane; before a third is begun the first has ended, and the clock is looked
// at.
void HeadScan::score_blocks(const std::vector<Column>& columns, Answer& answer) {
  const bool denominator = columns.front().search->wants_log_probs();
  const Pieces& pieces = pieces_for(sizes_.batch_for(columns.size()));
  const std::vector<Block>& blocks = pieces.blocks;
  std::size_t begun = 0, collected = 0;
  const auto collect_next = [&] { collect(pieces, collected++, answer, denominator); };
  for (; begun < blocks.size(); ++begun) {
    if (begun - collected == lanes_.size()) collect_next();
    if (begun > 0 && !any_goes_on(columns)) break;
    Lane& lane = lanes_[begun % lanes_.size()];
    lane.run(table_.bring(blocks[begun], begun % lanes_.size(), lane.stream()), blocks[begun], true);
    answer.rows += blocks[begun].valid;
  }
  while (collected < begun) collect_next();
}

void HeadScan::collect(const Pieces& pieces, std::size_t number, Answer& answer, bool denominator) {
  const Found found = lanes_[number % lanes_.size()].finish();
  const Block& block = pieces.blocks[number];
  for (std::size_t i = 0; i < answer.items.size(); ++i) {
    ItemSearch& search = answer.items[i];
    const ItemFound own = found_for(found, i);
    const double upper = search.take(block, pieces.bounds[number], own);
    const bool sum = denominator && !search.add(own.m, own.l);
    if (sum || upper > -std::numeric_limits<double>::infinity()) doubts_.push_back({i, block, upper, sum});
  }
}

ItemFound HeadScan::found_for(const Found& found, std::size_t item) const {
  const std::size_t k = plan_.k();
  return {found.scores + item * k, found.rows + item * k, k, found.m[item], found.l[item]};
}

// Scores a block again for one item, in halves, until what they leave out is proven not to matter. A step that is still
// in doubt is scored here, and so is what the plan's scores say nothing about; the item of zeros makes all rows equal.
// Returns whether there was time for it.
bool HeadScan::settle(ItemSearch& search, const Search& wanted, const Block& block) {
  const std::uint64_t steps = block.rows / sizes_.step();
  const bool tells = search.item().magnitude > 0 && std::isfinite(allowance(search.item(), table_.bounds(block).reach));
  if (steps < 2 || !tells) {
    search.score_all(block, false);
    return true;
  }
  const std::uint64_t first_rows = steps / 2 * sizes_.step();
  const Block halves[] = {{block.first, first_rows, std::min(first_rows, block.valid)},
                          {block.first + first_rows, block.rows - first_rows, less(block.valid, first_rows)}};
  for (const Block& half : halves) {
    if (half.valid == 0) continue;
    if (has_ended(wanted)) return false;
    lanes_[0].run(table_.bring(half, 0, lanes_[0].stream()), half, false);
    const Found found = lanes_[0].finish();
    const double upper = search.take(half, table_.bounds(half), found_for(found, 0));
    search.rescore();
    if (!search.rules_out(upper) && !settle(search, wanted, half)) return false;
  }
  return true;
}

}  // namespace fllm::tensorrt
