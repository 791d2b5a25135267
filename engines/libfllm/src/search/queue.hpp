// The queue in which searches of many threads wait to share a pass.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "search/engine.hpp"
#include "search/search.hpp"

namespace fllm {

// One pass runs at a time, on all that the engine has. Searches that arrive meanwhile wait, and those of one kind
// share the next pass: for a table larger than the caches many items cost little more than one. There is no thread of
// its own: one of the waiting callers leads. A caller is woken when its search is done or when it is to lead, and not
// for others: with a hundred callers, waking them all for each would cost a fifth of the processor's time.
class Queue {
 public:
  Queue(std::unique_ptr<Engine> engine, std::chrono::microseconds window);

  const Engine& engine() const { return *engine_; }

  // Throws Error with Status::cancelled when the search was cancelled.
  std::vector<ItemAnswer> search(const Search& search);

 private:
  struct Ticket {
    explicit Ticket(const Search& wanted) : search(&wanted) {}
    const Search* search;
    std::size_t begun = 0;  // items that passes have been made or are being made for
    std::vector<ItemAnswer> answers;
    std::exception_ptr failure;
    std::condition_variable woken;
    bool done() const { return failure != nullptr || answers.size() == search->items; }
  };
  struct Share {
    Ticket* ticket;
    std::size_t items;
  };

  void lead(std::unique_lock<std::mutex>& lock);
  std::vector<Share> take_shares();
  void run(const std::vector<Share>& shares);

  std::unique_ptr<Engine> engine_;
  std::chrono::microseconds window_;
  std::mutex mutex_;
  bool leading_ = false;
  std::deque<Ticket*> waiting_;
};

}  // namespace fllm
