// Changes of a table: what they make of it, and what is left of them when the system refuses one of their calls.
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "change_cases.hpp"
#include "changes/sha256.hpp"
#include "refusal.hpp"

namespace {

using cases::LivingTable;
using cases::Users;
using fllm::Status;
using Ids = std::vector<std::int64_t>;

std::string content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::set<std::string> names_in(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(directory)) names.insert(file.path().filename().string());
  return names;
}

// Fails one of its calls, counted from 0, and no other.
class FailingDisk : public cases::QuickDisk {
 public:
  FailingDisk(int at, int code) : at_(at), code_(code) {}

  bool failed() const { return failed_; }

  int create(const std::string& path, int& file) override { return fails() ? code_ : QuickDisk::create(path, file); }
  int write(int file, const void* data, std::size_t bytes) override {
    return fails() ? code_ : QuickDisk::write(file, data, bytes);
  }
  int sync(int file) override { return fails() ? code_ : QuickDisk::sync(file); }
  int link(const std::string& path, const std::string& second) override {
    return fails() ? code_ : QuickDisk::link(path, second);
  }
  int rename(const std::string& path, const std::string& next) override {
    return fails() ? code_ : QuickDisk::rename(path, next);
  }
  int remove(const std::string& path) override { return fails() ? code_ : QuickDisk::remove(path); }
  int sync_directory(const std::string& path) override { return fails() ? code_ : QuickDisk::sync_directory(path); }

 private:
  bool fails() {
    if (at_-- != 0) return false;
    return failed_ = true;
  }

  int at_, code_;
  bool failed_ = false;
};

class NoLinks : public cases::QuickDisk {
 public:
  int link(const std::string&, const std::string&) override { return EPERM; }
};

void hashes() {
  CHECK(fllm::changes::sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(fllm::changes::sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(fllm::changes::sha256(std::string(1000000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  for (std::size_t length = 0; length < 200; ++length) {
    fllm::changes::Sha256 parts;
    const std::string text(length, 'x');
    for (std::size_t at = 0; at < length; at += 7) parts.add(text.data() + at, std::min<std::size_t>(7, length - at));
    CHECK(parts.digest() == fllm::changes::sha256(text));
  }
}

// One change with one failing call. False where there was no such call any more.
bool one_failure(const cases::Case& change, int at, int code, Status status) {
  const writer::Directory directory;
  cases::write_table(directory);
  const Users before = cases::users_of(directory.path());
  const std::string text = content(directory.path("table.json"));
  const std::set<std::string> names = names_in(directory.path());
  FailingDisk disk(at, code);
  LivingTable table(directory.path(), disk);
  std::string message;
  try {
    change.make(table);
  } catch (const fllm::Error& error) {
    CHECK(error.status() == status);
    message = error.what();
  }
  const Users after = cases::users_of(directory.path());
  if (content(directory.path("table.json")) == text) {
    CHECK(message.find("; the table is unchanged; expected a disk") != std::string::npos);
    CHECK(after == before);
  } else if (!message.empty()) {
    CHECK(message.find("; the change was made, and a power cut may undo it") != std::string::npos);
  }
  const bool renaming = message.find("/table.json: ") != std::string::npos;  // nothing is removed once that has begun
  if (after == before && !renaming) CHECK(names_in(directory.path()) == names);
  cases::QuickDisk good;
  CHECK(LivingTable(directory.path(), good).remove(Ids{9}).users == after.size() - 1);
  CHECK(cases::users_of(directory.path()).size() == after.size() - 1);
  return disk.failed();
}

void failures() {
  for (const cases::Case& change : cases::all()) {
    int at = 0;
    while (one_failure(change, at, EIO, Status::bundle)) ++at;
    CHECK(at > 10);
    for (at = 0; one_failure(change, at, ENOSPC, Status::memory);) ++at;
    for (at = 0; one_failure(change, at, EROFS, Status::usage);) ++at;
  }
}

void without_links() {
  for (const cases::Case& change : cases::all()) {
    const writer::Directory directory;
    cases::write_table(directory);
    const std::string text = content(directory.path("table.json"));
    NoLinks disk;
    LivingTable table(directory.path(), disk);
    CHECK(change.make(table).generation == 4);
    CHECK(content(directory.path("table.previous.json")) == text);
    CHECK(names_in(directory.path()).size() < 9);
  }
}

void generations_and_users() {
  const writer::Directory directory;
  cases::write_table(directory);
  cases::QuickDisk disk;
  LivingTable table(directory.path(), disk);
  CHECK(fllm::Table(directory.path()).layout().generation == 3);
  REFUSED(table.remove(Ids{3}, 2), Status::usage, "is of generation 3; expected 2, as if_generation says");
  const cases::Change change = table.update(cases::Rows(60, 10).given(), cases::kDim, 3);
  CHECK(change.generation == 4 && change.updated == 10 && change.appended == 0 && change.users == 46);
  CHECK(change.deleted_rows == 2 + 10 && change.shards == 2);
  REFUSED(table.remove(Ids{0}), Status::usage, "user id 0 is not in the table");
  REFUSED(table.remove(Ids{3, 4, 6}), Status::usage, "user id 4 is not in the table");
}

void another_writer_meanwhile() {
  const writer::Directory directory;
  cases::write_table(directory);
  const fllm::changes::Snapshot now(directory.path());
  cases::QuickDisk disk;
  LivingTable(directory.path(), disk).remove(Ids{3});
  const std::string text = content(directory.path("table.json"));
  const std::set<std::string> names = names_in(directory.path());
  {
    fllm::changes::Draft draft(now, disk);
    draft.remove(std::vector<std::uint64_t>{5});
    REFUSED(draft.publish(), Status::usage, "was changed by another writer meanwhile");
  }
  CHECK(content(directory.path("table.json")) == text);
  CHECK(names_in(directory.path()) == names);
}

void leftovers_of_writers_that_were_killed() {
  const writer::Directory directory;
  cases::write_table(directory);
  const std::set<std::string> theirs{"00000009-0123abcd-000.safetensors",
                                     "00000009-0123abcd-tombstones.safetensors",
                                     ".table.json.0123abcd",
                                     ".table.previous.json.q",
                                     ".00000.safetensors.x1",
                                     "refine-00007.safetensors",
                                     "00000009-0123abcd-refine-000.safetensors",
                                     "123456789-a-histories.safetensors"};
  const std::set<std::string> others{"notes.txt",
                                     ".compacting-0123abcd-000.safetensors",
                                     "0009-x-000.safetensors",
                                     "00000009-x-000.safetensors",
                                     "00000009-0123abcd-00.safetensors",
                                     "refine-00000009-0123abcd-000.safetensors",
                                     "000000.safetensors",
                                     ".notes.safetensors.txt"};
  for (const std::string& name : theirs) directory.write(name, "x");
  for (const std::string& name : others) directory.write(name, "x");
  cases::QuickDisk disk;
  LivingTable(directory.path(), disk).remove(Ids{3});
  const std::set<std::string> names = names_in(directory.path());
  for (const std::string& name : theirs) CHECK(!names.contains(name));
  for (const std::string& name : others) CHECK(names.contains(name));
}

}  // namespace

int main() {
  hashes();
  failures();
  without_links();
  generations_and_users();
  another_writer_meanwhile();
  leftovers_of_writers_that_were_killed();
  return check::result();
}
