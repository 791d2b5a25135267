// Power cuts at every moment of every change in C++: what was acknowledged is there, and nothing is there by half.
#include <cstdio>
#include <set>

#include "change_cases.hpp"
#include "check.hpp"
#include "recording_disk.hpp"

namespace {

using cases::Users;

// What is wrong with the tables that power cuts at all recorded moments leave.
std::vector<std::string> faults(const recording::Disk& disk, const Users& before, const Users& after) {
  std::vector<std::string> found;
  std::set<std::pair<bool, recording::Files>> seen;
  const writer::Directory scratch;
  for (const recording::Moment& moment : disk.moments()) {
    const bool acknowledged = &moment == &disk.moments().back();
    recording::remains(moment, [&](const recording::Files& files) {
      if (!seen.emplace(acknowledged, files).second) return;
      std::filesystem::remove_all(scratch.path());
      std::filesystem::create_directory(scratch.path());
      for (const auto& [name, content] : files) scratch.write(name, content);
      try {
        const Users left = cases::users_of(scratch.path());
        if (left == after || (left == before && !acknowledged)) return;
        found.push_back("before " + moment.call + (left == before ? ": the change is lost" : ": it is there by half"));
      } catch (const fllm::Error& error) {
        found.push_back("before " + moment.call + ": " + error.what());
      }
    });
  }
  return found;
}

struct Run {
  int syncs = 0;
  std::vector<std::string> faults;
};

Run run(const cases::Case& change, int lost) {
  const writer::Directory directory;
  cases::write_table(directory);
  const Users before = cases::users_of(directory.path());
  recording::Disk disk(directory.path(), lost);
  cases::LivingTable table(directory.path(), disk);
  change.make(table);
  disk.note("the end");
  return {disk.syncs(), faults(disk, before, cases::users_of(directory.path()))};
}

void every_moment(const cases::Case& change) {
  const Run whole = run(change, recording::Disk::kNone);
  for (const std::string& fault : whole.faults) std::fprintf(stderr, "%s: %s\n", change.name, fault.c_str());
  CHECK(whole.faults.empty());
  CHECK(whole.syncs >= 4);
  for (int lost = 0; lost < whole.syncs; ++lost) {
    const bool noticed = !run(change, lost).faults.empty();
    if (!noticed) std::fprintf(stderr, "%s: nothing is lost without sync %d\n", change.name, lost);
    CHECK(noticed);
  }
}

}  // namespace

int main() {
  for (const cases::Case& change : cases::all()) every_moment(change);
  return check::result();
}
