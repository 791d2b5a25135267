#include "machine/pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "status.hpp"

namespace fllm {

namespace {

// Pins a thread to the `number`-th CPU (counted round) of those this process may use.
void pin(std::thread& thread, std::size_t number) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  const auto count = static_cast<std::size_t>(CPU_COUNT(&allowed));
  std::size_t seen = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || seen++ != number % count) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(thread.native_handle(), sizeof one, &one);
    return;
  }
}

}  // namespace

Pool::Pool(std::size_t threads, bool pinned) {
  try {
    for (std::size_t number = 1; number < threads; ++number) {
      helpers_.emplace_back([this, number] { help(number); });
      if (pinned) pin(helpers_.back(), number);
    }
  } catch (const std::system_error& failure) {
    const std::string found = "thread " + std::to_string(helpers_.size() + 2) + " of " + std::to_string(threads) +
                              " cannot be started (" + failure.code().message() + ")";
    stop();
    throw Error(
        Status::memory,
        sentence(found, "every thread to start",
                 "Use fewer threads (FLLM_NUM_THREADS), or raise the limit on processes (ulimit -u, the control "
                 "group's pids.max) or on memory (ulimit -v)"));
  } catch (...) {
    stop();
    throw;
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  begin_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Pool::run(std::size_t wanted, const std::function<void(std::size_t)>& work) {
  wanted = std::min(wanted, threads());
  if (wanted > 1) {
    {
      const std::lock_guard lock(mutex_);
      work_ = &work;
      wanted_ = wanted;
      running_ = wanted - 1;
      failure_ = nullptr;
      ++round_;
    }
    begin_.notify_all();
  } else {
    failure_ = nullptr;
  }
  attempt(0, work);
  std::unique_lock lock(mutex_);
  end_.wait(lock, [this] { return running_ == 0; });
  work_ = nullptr;
  if (failure_) std::rethrow_exception(failure_);
}

void Pool::help(std::size_t number) {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    begin_.wait(lock, [&] { return stopping_ || round_ != seen; });
    if (stopping_) return;
    seen = round_;
    if (number >= wanted_) continue;
    const std::function<void(std::size_t)>& work = *work_;
    lock.unlock();
    attempt(number, work);
    lock.lock();
    if (--running_ == 0) end_.notify_one();
  }
}

void Pool::attempt(std::size_t number, const std::function<void(std::size_t)>& work) {
  try {
    work(number);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

}  // namespace fllm
