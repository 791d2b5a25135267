// A user table on disk, opened in place: table.json and its shards (docs/reference/format.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/codec.hpp"
#include "format/sketch.hpp"
#include "format/tombstones.hpp"
#include "link.hpp"
#include "machine/mapping.hpp"

namespace fllm {

// Numbers per tile beside its direction: least and greatest part along it, greatest rest, greatest bias.
inline constexpr std::size_t kTileExtents = 4;

// A tile of uneven size has at most so many times `tile_rows` rows.
inline constexpr std::size_t kUnevenTile = 2;

// Rows scored together: pointers into the mapped shard. Ids ascend within a tile.
struct Tile {
  std::size_t rows = 0;
  std::uint64_t first_row = 0;  // number of the tile's first row in the table, in scan order
  const std::uint8_t* codes = nullptr;
  const std::uint8_t* groups = nullptr;  // null unless the codec has groups
  const float* scales = nullptr;
  const float* bias = nullptr;  // null when the table has none
  const std::int64_t* ids = nullptr;
  const Sketch* sketch = nullptr;    // of the tile's shard; null when the table has none
  const float* direction = nullptr;  // [dim], and
  const float* extents = nullptr;    // [kTileExtents]; null when the table has no bounds
  std::size_t sketch_row = 0;        // number of the tile's first row in that shard, a multiple of a sketch's block
  bool has_deleted = false;          // whether tombstones mark some of the rows
};

struct ShardEntry {
  std::string name;
  std::uint64_t rows = 0;
  std::uint64_t bytes = 0;
  std::string sha256;
};

// The refinement rows: each row once more, in more bits, for the candidates that are ranked again.
struct RefinementLayout {
  Codec codec = Codec::int8;       // int8 or fp16
  std::size_t dim = 0;             // of these rows and of item vectors; the table's rows have the first of them
  std::vector<ShardEntry> shards;  // one for each shard of the table, with the same rows
};

// table.json.
struct Layout {
  Codec codec = Codec::int8;
  std::size_t dim = 0;
  std::uint64_t rows = 0;         // users: the rows of all shards that are not deleted
  std::uint64_t stored_rows = 0;  // of all shards
  std::uint64_t tile_rows = 0;
  bool bias = false;
  std::int64_t generation = 0;
  std::size_t sketch_dims = 0;  // 0: no sketch
  bool tile_bounds = false;     // tiles hold rows that lie together, and have bounds
  bool tile_ends = false;       // shards may say where their tiles end
  std::vector<ShardEntry> shards;
  TombstonesEntry tombstones;  // none when no row is deleted
  bool recovered = false;      // it is the layout before the one in table.json, which cannot be read
  std::optional<RefinementLayout> refinement;
  Link link;  // how scores become probabilities

  // Keeps the shards of one of `parts` contiguous parts: those whose middle row lies in it. `rows` stays that of the
  // table. Returns the number of the first stored row that is kept. As fllm_export.table.part.
  std::uint64_t keep_part(std::uint32_t part, std::uint32_t parts);

  // Dimension of an item vector.
  std::size_t item_dim() const { return refinement ? refinement->dim : dim; }

  static constexpr const char* kFileName = "table.json";
  static constexpr const char* kPreviousName = "table.previous.json";

  // As strict as fllm_export.table.layout. Where table.json is not JSON, load() takes the layout before. Both throw
  // Error (Status::bundle). `path` is for messages.
  static Layout load(const std::string& directory);
  static Layout parse(std::string_view text, const std::string& path);
};

struct Shard;
class Refinement;

struct Residency {
  bool resident = false;    // read everything at opening and keep it in memory that the system may not page out
  std::uint32_t part = 0;   // number of the part of the table that is opened
  std::uint32_t parts = 0;  // contiguous parts of whole shards; 0: the whole table
};

// Immutable after construction and safe to share between threads. Opening reads headers only (all bytes if resident),
// and starts over where the directory is replaced meanwhile: table.json and shards are always those of one table.
// Throws Error: Status::bundle for files that are missing, damaged or of a newer format, Status::memory when a resident
// table does not fit, Status::usage when the part to be opened holds no user.
class Table {
 public:
  explicit Table(const std::string& directory, Residency residency = {});
  ~Table();
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  const Layout& layout() const { return layout_; }
  const std::vector<Tile>& tiles() const { return tiles_; }  // in scan order

  // Of the rows by their numbers in scan order, as Tile::first_row counts them.
  const Tombstones& tombstones() const { return tombstones_; }

  // One a shard, empty when the table has none. Shards of one basis have the same number in Sketch::basis_number.
  const std::vector<Sketch>& sketches() const { return sketches_; }

  // Null when the table has none. They stay in their files, also where the table is resident.
  const Refinement* refinement() const { return refinement_.get(); }

  // Asks the system to bring a tile's codes and scales in (larger-than-memory tables); returns at once, and whether
  // anything had to be asked for.
  bool prefetch(const Tile& tile) const;

  // Names a row of a tile in messages: "users/00000.safetensors: row 17 (user 170)".
  std::string place_of(const Tile& tile, std::size_t row) const;

 private:
  std::vector<Shard> map(const std::string& directory, Residency residency);
  void read_layout(const std::string& directory, Residency residency);
  std::size_t shard_of(const Tile& tile) const;
  Shard view(const Mapping& mapping, const ShardEntry& entry) const;
  void collect_sketches(const std::vector<Shard>& shards);
  void cut(const std::vector<Shard>& shards);

  Layout layout_;
  Tombstones tombstones_;
  std::vector<std::unique_ptr<Mapping>> mappings_;  // one a shard
  std::vector<std::uint64_t> first_rows_;           // number of each shard's first row in the table
  std::vector<Sketch> sketches_;
  std::vector<Tile> tiles_;
  std::unique_ptr<Refinement> refinement_;
};

}  // namespace fllm
