// Searches whose candidates are ranked again by refinement rows. fllm_export.engines.refined is the definition.
#pragma once

#include <vector>

#include "kernels/kernels.hpp"
#include "search/open_table.hpp"
#include "search/search.hpp"

namespace fllm {

// Makes a search for whole item vectors [items, item_dim], of which rows that are scanned meet the leading dimensions.
// With `refine` the k best of the refine x k best users are returned, by their refinement rows. The time that takes is
// not limited by the deadline, nor is that of refined scores. Throws Error with Status::cancelled when the search was
// cancelled.
std::vector<ItemAnswer> search_refined(OpenTable& open, const kernels::Kernels& kernels, const Search& search);

}  // namespace fllm
