// A disk that takes down what is done to a directory, and tells what a power cut may leave of it.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "change_cases.hpp"

namespace recording {

using Names = std::map<std::string, int>;     // file names and the numbers of their contents
using Contents = std::map<int, std::string>;  // by number
using Files = std::map<std::string, std::string>;
using NameChange = std::vector<std::pair<std::string, std::optional<int>>>;  // of one call; nothing: the name is gone

inline std::string base_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

// The directory before one call, and what of it a disk must have kept.
struct Moment {
  std::string call;
  Contents contents, kept_contents;
  Names kept_names;
  std::vector<NameChange> changes;  // since the last sync of the directory
};

class Disk : public cases::QuickDisk {
 public:
  static constexpr int kNone = -1;

  // `lost`: the sync, counted from 0, that reports success and does nothing.
  explicit Disk(const std::string& directory, int lost = kNone) : lost_(lost) {
    for (const auto& file : std::filesystem::directory_iterator(directory)) {
      std::ifstream in(file.path(), std::ios::binary);
      contents_[next_] = {std::istreambuf_iterator<char>(in), {}};
      names_[file.path().filename().string()] = next_++;
    }
    kept_names_ = names_;
    kept_contents_ = contents_;
  }

  int create(const std::string& path, int& file) override {
    note("create " + base_name(path));
    const int code = QuickDisk::create(path, file);
    if (code != 0) return code;
    contents_[next_] = "";
    open_[file] = next_;
    named(path, next_++);
    return 0;
  }

  int write(int file, const void* data, std::size_t bytes) override {
    note("write");
    contents_[open_.at(file)].append(static_cast<const char*>(data), bytes);
    return QuickDisk::write(file, data, bytes);
  }

  int sync(int file) override {
    note("sync");
    if (syncs_++ != lost_) kept_contents_[open_.at(file)] = contents_.at(open_.at(file));
    return 0;
  }

  int link(const std::string& path, const std::string& second) override {
    note("link " + base_name(second));
    const int code = QuickDisk::link(path, second);
    if (code == 0) named(second, names_.at(base_name(path)));
    return code;
  }

  int rename(const std::string& path, const std::string& next) override {
    note("rename to " + base_name(next));
    const int number = names_.at(base_name(path));
    // Two names of one file: nothing is done.
    const auto taken = names_.find(base_name(next));
    if (taken == names_.end() || taken->second != number) {
      names_.erase(base_name(path));
      names_[base_name(next)] = number;
      changes_.push_back({{base_name(path), std::nullopt}, {base_name(next), number}});
    }
    return QuickDisk::rename(path, next);
  }

  int remove(const std::string& path) override {
    note("remove " + base_name(path));
    if (names_.erase(base_name(path)) > 0) changes_.push_back({{base_name(path), std::nullopt}});
    return QuickDisk::remove(path);
  }

  int sync_directory(const std::string&) override {
    note("sync of the directory");
    if (syncs_++ != lost_) {
      kept_names_ = names_;
      changes_.clear();
    }
    return 0;
  }

  void note(const std::string& call) { moments_.push_back({call, contents_, kept_contents_, kept_names_, changes_}); }

  const std::vector<Moment>& moments() const { return moments_; }
  int syncs() const { return syncs_; }

 private:
  void named(const std::string& path, int number) {
    names_[base_name(path)] = number;
    changes_.push_back({{base_name(path), number}});
  }

  int lost_, next_ = 0, syncs_ = 0;
  Names names_, kept_names_;
  Contents contents_, kept_contents_;
  std::map<int, int> open_;  // by descriptor the number of the contents
  std::vector<NameChange> changes_;
  std::vector<Moment> moments_;
};

// A file that was not synced since it was written may be empty, or end in a block of zeros, or be whole.
enum class Unsynced { dropped, zeroed, whole };

inline std::string content_of(const Moment& moment, int number, Unsynced what) {
  constexpr std::size_t kBlock = 4096;
  const auto kept = moment.kept_contents.find(number);
  const std::string& written = moment.contents.at(number);
  if (kept != moment.kept_contents.end() && kept->second == written) return written;
  if (what == Unsynced::dropped) return kept == moment.kept_contents.end() ? "" : kept->second;
  if (what == Unsynced::whole || written.empty()) return written;
  std::string zeroed = written.substr(0, (written.size() - 1) / kBlock * kBlock);
  zeroed.append(written.size() - zeroed.size(), '\0');
  return zeroed;
}

// Calls found(files) with all that a power cut at a moment may leave: of the changes of names since the last sync of
// the directory any may have reached the disk.
inline void remains(const Moment& moment, const std::function<void(const Files&)>& found) {
  for (unsigned chosen = 0; chosen < 1u << moment.changes.size(); ++chosen) {
    Names names = moment.kept_names;
    for (std::size_t i = 0; i < moment.changes.size(); ++i) {
      if ((chosen >> i & 1u) == 0) continue;
      for (const auto& [name, number] : moment.changes[i]) {
        names.erase(name);
        if (number) names[name] = *number;
      }
    }
    for (const Unsynced what : {Unsynced::dropped, Unsynced::zeroed, Unsynced::whole}) {
      Files files;
      for (const auto& [name, number] : names) files[name] = content_of(moment, number, what);
      found(files);
    }
  }
}

}  // namespace recording
