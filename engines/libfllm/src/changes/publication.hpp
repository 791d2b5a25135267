// New files of a table, and the table.json that names them, put in place in one step (docs/guides/living_tables.md).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "changes/disk.hpp"

namespace fllm::changes {

// A tensor of a file that is written, and its data.
struct Piece {
  std::string name, dtype;
  std::vector<std::uint64_t> shape;
  const void* data;
  std::uint64_t bytes;
};

// What table.json says of a file.
struct FileFacts {
  std::string name;
  std::uint64_t bytes;
  std::string sha256;
};

// Files go to the disk in this order: all of them are written; all of them are synced, then the directory; table.json
// takes its name; the directory is synced again. Until it is published, a publication that ends removes its files;
// once publish() has begun, either table.json may be the durable one, and no file is removed.
//
// All functions throw Refusal when the system refuses.
class Publication {
 public:
  // `token`: hexadecimal digits that no other change has, for the names of its files.
  Publication(Disk& disk, std::string directory, std::string token);
  ~Publication();
  Publication(const Publication&) = delete;
  Publication& operator=(const Publication&) = delete;

  // Writes a safetensors file whose tensors begin on pages; `metadata` are names and values for its header. Its own
  // name is given at once: nobody opens a name that no table.json lists.
  FileFacts write(const std::string& name, const std::vector<std::pair<std::string, std::string>>& metadata,
                  const std::vector<Piece>& pieces);

  // Writes and syncs the next table.json beside the one in place, of which `now` is the text and which becomes
  // table.previous.json, and syncs everything that was written.
  void prepare(const std::string& now, const std::string& next);

  // Puts the next table.json in place.
  void publish();

  bool begun() const { return begun_; }

 private:
  struct OpenFile {
    std::string path;
    int descriptor;
  };

  std::string path(const std::string& name) const;
  std::string beside(const std::string& name) const;
  int create(const std::string& path);
  void keep_previous(const std::string& now);
  void sync_files();
  void close_all();

  Disk& disk_;
  std::string directory_, token_;
  std::vector<OpenFile> open_;
  std::vector<std::string> created_;
  bool begun_ = false;
};

}  // namespace fllm::changes
