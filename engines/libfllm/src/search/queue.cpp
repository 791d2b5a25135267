#include "search/queue.hpp"

#include <algorithm>
#include <thread>

#include "status.hpp"

namespace fllm {

namespace {

constexpr std::size_t kCandidateBytes = 512u << 20;  // of all items' candidates at most

}  // namespace

Queue::Queue(std::unique_ptr<Engine> engine, std::chrono::microseconds window)
    : engine_(std::move(engine)), window_(window) {}

std::vector<ItemAnswer> Queue::search(const Search& search) {
  engine_->check(search);  // before it shares a pass with others
  Ticket ticket(search);
  ticket.answers.reserve(search.items);  // so that nothing is left to fail once a pass has its answers
  std::unique_lock lock(mutex_);
  waiting_.push_back(&ticket);
  while (!ticket.done()) {
    if (leading_) {
      ticket.woken.wait(lock);
    } else {
      lead(lock);
    }
  }
  if (ticket.failure) std::rethrow_exception(ticket.failure);
  if (search.is_cancelled()) throw Error(Status::cancelled, sentence("the search was cancelled"));
  return std::move(ticket.answers);
}

// Runs one pass for the front of the queue, which need not hold the caller's own search. Throws nothing: others wait
// for its end, and what fails is told to those whose pass it is.
void Queue::lead(std::unique_lock<std::mutex>& lock) {
  leading_ = true;
  if (window_.count() > 0) {
    lock.unlock();
    std::this_thread::sleep_for(window_);
    lock.lock();
  }
  std::vector<Share> shares;
  try {
    shares = take_shares();
  } catch (...) {  // no memory; the queue is as it was
    waiting_.front()->failure = std::current_exception();
    waiting_.front()->woken.notify_one();
    waiting_.pop_front();
  }
  lock.unlock();
  run(shares);
  lock.lock();
  leading_ = false;
  if (!waiting_.empty()) waiting_.front()->woken.notify_one();
}

std::vector<Queue::Share> Queue::take_shares() {
  std::vector<Share> shares;
  std::deque<Ticket*> rest;
  std::size_t free_columns = engine_->most_columns();
  std::size_t free_bytes = kCandidateBytes;
  const Search& first = *waiting_.front()->search;
  for (Ticket* ticket : waiting_) {
    const Search& search = *ticket->search;
    const std::size_t each = engine_->candidate_bytes(search.k);
    std::size_t items = std::min({free_columns, free_bytes / each, search.items - ticket->begun});
    if (shares.empty()) items = std::max<std::size_t>(items, 1);
    if (!engine_->alike(first, search) || items == 0) {
      rest.push_back(ticket);
      continue;
    }
    shares.push_back({ticket, items});
    free_columns -= items;
    free_bytes -= std::min(free_bytes, items * each);
  }
  for (const Share& share : shares) {
    // What does not fit stands at the back of the queue again, so that large searches do not hold up small ones.
    if (share.ticket->begun + share.items < share.ticket->search->items) rest.push_back(share.ticket);
  }
  waiting_ = std::move(rest);
  return shares;
}

void Queue::run(const std::vector<Share>& shares) {
  std::vector<ItemAnswer> answers;
  std::exception_ptr failure;
  try {
    std::vector<Column> columns;
    for (const Share& share : shares) {
      for (std::size_t i = 0; i < share.items; ++i) columns.push_back({share.ticket->search, share.ticket->begun + i});
    }
    answers = engine_->scan(std::move(columns));
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  auto next = answers.begin();
  for (const Share& share : shares) {
    share.ticket->begun += share.items;
    if (failure) {
      share.ticket->failure = failure;
      std::erase(waiting_, share.ticket);
    } else {
      const auto end = next + static_cast<std::ptrdiff_t>(share.items);
      std::move(next, end, std::back_inserter(share.ticket->answers));
      next = end;
    }
    // Under the lock: without it, the ticket could be gone already.
    if (share.ticket->done()) share.ticket->woken.notify_one();
  }
}

}  // namespace fllm
