// The threads of one table handle.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fllm {

// A fixed number of threads that run one function together; the thread that asks is one of them.
class Pool {
 public:
  // `pinned`: each helper thread stays on one CPU of those the process may use.
  // Throws Error (Status::memory): the system refuses to start a thread; none is left behind then.
  Pool(std::size_t threads, bool pinned);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  std::size_t threads() const { return helpers_.size() + 1; }

  // Calls work(0) here and work(1) .. work(n - 1) on helpers, n = min(wanted, threads()); returns when all have ended.
  // Throws what the first of them threw. One call at a time.
  void run(std::size_t wanted, const std::function<void(std::size_t)>& work);

 private:
  void stop();
  void help(std::size_t number);
  void attempt(std::size_t number, const std::function<void(std::size_t)>& work);

  std::mutex mutex_;
  std::condition_variable begin_, end_;
  const std::function<void(std::size_t)>* work_ = nullptr;
  std::size_t wanted_ = 0, running_ = 0;
  std::uint64_t round_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
  std::vector<std::thread> helpers_;
};

}  // namespace fllm
