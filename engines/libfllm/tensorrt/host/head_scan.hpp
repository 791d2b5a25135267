// A pass of a head plan over a table. The plan chooses K rows a block by scores that are a little off; those are scored
// exactly, and blocks that may hide a better row are scored again in halves. So the answer is exact.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "block_sizes.hpp"
#include "exact_rows.hpp"
#include "item_search.hpp"
#include "lane.hpp"
#include "plan.hpp"
#include "plan_table.hpp"
#include "search/query.hpp"

namespace fllm::tensorrt {

struct PlanOptions {
  std::string plan;         // the head plan's file
  std::uint64_t bytes = 0;  // of the GPU's memory at most; 0: what is free
};

class HeadScan {
 public:
  HeadScan(const cuda::Driver& cuda_driver, const PlanDriver& plan_driver, const cuda::Rows& table,
           const kernels::Kernels& kernels, const PlanOptions& options);
  ~HeadScan();

  const cuda::Device& device() const { return device_; }
  const Plan& plan() const { return plan_; }

  // What was found, by column.
  struct Answer {
    std::vector<ItemSearch> items;
    std::vector<bool> proven;  // no row that was scored can be missing
    std::vector<bool> summed;  // all rows that were scored are in the denominator
    std::uint64_t rows = 0;    // that were scored
  };

  // The first block is scored for everybody; none is begun once all searches have ended, and neither is a proof. One
  // call at a time.
  Answer run(const std::vector<Column>& columns, const std::vector<WholeItem>& items);

 private:
  // The blocks of a pass and their bounds.
  struct Pieces {
    std::vector<Block> blocks;
    std::vector<RowBounds> bounds;
  };

  // A block that may hold better rows than those found in it, or that has no share of the denominator yet.
  struct Doubt {
    std::size_t item;
    Block block;
    double upper;
    bool sum;
  };

  PlanTable made_table(const cuda::Driver& driver, const cuda::Rows& table, const kernels::Kernels& kernels,
                       std::uint64_t bytes);
  std::uint64_t limit(const cuda::Driver& driver, std::uint64_t bytes) const;
  const Pieces& pieces_for(std::size_t batch);
  void score_blocks(const std::vector<Column>& columns, Answer& answer);
  void collect(const Pieces& pieces, std::size_t number, Answer& answer, bool denominator);
  void settle_doubts(const std::vector<Column>& columns, Answer& answer);
  ItemFound found_for(const Found& found, std::size_t item) const;
  bool settle(ItemSearch& search, const Search& wanted, const Block& block);

  cuda::Device device_;
  Plan plan_;
  std::array<Lane, PlanTable::kPlaces> lanes_;  // a lane a place
  BlockSizes sizes_;
  PlanTable table_;
  ExactRows exact_;
  std::map<std::size_t, Pieces> pieces_;  // by batch
  std::vector<Doubt> doubts_;             // of the pass under way
};

}  // namespace fllm::tensorrt
