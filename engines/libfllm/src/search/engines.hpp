// The engines of this library: one table, from which tables are opened, errors are worded and the C interface answers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "format/table.hpp"
#include "kernels/kernels.hpp"
#include "search/engine.hpp"

namespace fllm {

// What engines are made with. Each reads what is meant for it.
struct EngineOptions {
  std::size_t threads = 1;
  bool pin_threads = false;
  const kernels::Kernels* kernels = nullptr;
  std::uint32_t gpus = 0;       // that share the table; 0: one
  std::uint64_t gpu_bytes = 0;  // of each one's memory at most; 0: what is free
  std::string plan;             // path of a head plan; empty: none
};

struct EngineKind {
  const char* name;
  std::span<const Codec> codecs;  // of the tables that it serves
  bool takes_plan;                // and cannot do without
  bool refines;                   // whether it serves tables with refinement rows
  bool skips_deleted;             // serves tables with deleted rows
  bool links;                     // serves tables whose link is not the exponential
  std::unique_ptr<Engine> (*make)(const Table&, const EngineOptions&);

  // Throws Error (Status::usage) for a table or for options that this engine does not serve, and what `make` throws.
  std::unique_ptr<Engine> open(const Table& table, const EngineOptions& options) const;

  // Throws Error (Status::usage) for options that this engine cannot follow.
  void check(const EngineOptions& options) const;
};

// The first is the one that is taken when none is named.
std::span<const EngineKind> engine_kinds();

// Throws Error (Status::usage) when there is none of that name; an empty name is the first one's.
const EngineKind& find_engine(const std::string& name);

}  // namespace fllm
