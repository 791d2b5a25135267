// Changes through the C interface and its C++ header, as a server makes them.
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fllm/fllm.hpp>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "shard_writer.hpp"

namespace {

constexpr std::size_t kDim = 16;
constexpr std::size_t kRows = 40;  // users 0, 3, 6 and so on

using Ids = std::vector<std::int64_t>;

void check_refused(fllm_status status, const fllm_error& error, const std::string& words) {
  CHECK(status == FLLM_USAGE);
  CHECK(std::string(error.message).find(words) != std::string::npos);
}

void a_server_that_sees_new_users() {
  const writer::Directory directory;
  writer::write_table(directory, {kRows}, kDim, 64);
  fllm::TableOptions one_thread;
  one_thread.threads = 1;
  fllm::Table table(directory.path(), one_thread);
  const std::vector<float> rows(2 * kDim, 1e6f), z(kDim, 1.0f);
  fllm_change change = fllm::append_users(directory.path(), rows, Ids{1000, 1001});
  CHECK(change.generation == 2 && change.appended == 2 && change.users == kRows + 2 && change.shards == 2);
  fllm::SearchOptions best;
  best.k = 1;
  CHECK(table.search(z, 1, best).user_ids != Ids{1000});
  table.reopen();
  CHECK(table.search(z, 1, best).user_ids == Ids{1000});
  change = fllm::update_users(directory.path(), std::span(z), Ids{1000}, {.if_generation = 2, .bias = {}});
  CHECK(change.generation == 3 && change.updated == 1 && change.deleted_rows == 1);
  table.reopen();
  CHECK(table.search(z, 1, best).user_ids == Ids{1001});
  change = fllm::delete_users(directory.path(), Ids{1001, 3});
  CHECK(change.generation == 4 && change.deleted == 2 && change.users == kRows && change.deleted_rows == 3);
  table.reopen();
  CHECK(table.describe().rows == kRows && table.describe().deleted_rows == 3);
}

void what_is_refused() {
  const writer::Directory directory;
  writer::write_table(directory, {kRows}, kDim, 64);
  const char* const path = directory.path().c_str();
  const std::vector<float> row(kDim, 1.0f);
  const std::int64_t user = 3;
  fllm_error error;
  check_refused(fllm_users_delete(nullptr, &user, 1, nullptr, nullptr, &error), error, "directory is NULL");
  check_refused(fllm_users_delete(path, nullptr, 1, nullptr, nullptr, &error), error, "user_ids is NULL");
  check_refused(fllm_users_append(path, nullptr, 1, kDim, nullptr, &user, nullptr, nullptr, &error), error, "rows");
  fllm_change_options options = FLLM_CHANGE_OPTIONS_INIT;
  options.if_generation = -1;
  check_refused(fllm_users_delete(path, &user, 1, &options, nullptr, &error), error, "if_generation is below 0");
  options.size = 1000;
  check_refused(fllm_users_delete(path, &user, 1, &options, nullptr, &error), error, "size of fllm_change_options");
  try {
    fllm::append_users(directory.path(), std::span(row).first(kDim - 1), Ids{1, 2});
    CHECK(false);
  } catch (const fllm::Error& refused) {
    CHECK(refused.status() == FLLM_USAGE);
  }
  const writer::Directory empty;
  CHECK(fllm_users_delete(empty.path().c_str(), &user, 1, nullptr, nullptr, &error) == FLLM_BUNDLE);
  CHECK(std::filesystem::is_empty(empty.path()));
  CHECK(fllm_users_delete(path, &user, 1, nullptr, nullptr, &error) == FLLM_OK);
}

// A table of many files takes long to open. One that is opened later, and is open sooner, stays current.
void what_was_opened_last_is_current() {
  const writer::Directory slow, fast;
  writer::write_table(slow, std::vector<std::uint64_t>(2000, 1), kDim, 64);
  writer::write_table(fast, {kRows}, kDim, 64);
  fllm::TableOptions one_thread;
  one_thread.threads = 1;
  const auto began = std::chrono::steady_clock::now();
  fllm::Table table(slow.path(), one_thread);
  const auto opening = std::chrono::steady_clock::now() - began;
  for (int round = 0; round < 5; ++round) {
    std::binary_semaphore begins{0};
    std::thread earlier([table, &slow, &begins]() mutable {
      begins.release();
      table.reopen(slow.path());
    });
    begins.acquire();
    std::this_thread::sleep_for(opening / 3);
    table.reopen(fast.path());
    earlier.join();
    CHECK(table.describe().rows == kRows);
  }
}

// A program of an earlier release has shorter structs: only what it knows is read and written.
void shorter_structs() {
  const writer::Directory directory;
  writer::write_table(directory, {kRows}, kDim, 64);
  fllm_change change = FLLM_CHANGE_INIT;
  change.size = offsetof(fllm_change, appended);
  change.appended = 77;
  fllm_error error;
  const std::int64_t user = 3;
  CHECK(fllm_users_delete(directory.path().c_str(), &user, 1, nullptr, &change, &error) == FLLM_OK);
  CHECK(change.generation == 2 && change.users == kRows - 1 && change.appended == 77);
}

}  // namespace

int main() {
  a_server_that_sees_new_users();
  what_is_refused();
  what_was_opened_last_is_current();
  shorter_structs();
  return check::result();
}
