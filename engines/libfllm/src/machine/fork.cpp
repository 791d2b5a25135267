#include "machine/fork.hpp"

#include <pthread.h>

#include <atomic>

namespace fllm {

namespace {

std::atomic<std::uint64_t> number{0};
std::mutex mutex;

void before_fork() { mutex.lock(); }
void in_parent() { mutex.unlock(); }
void in_child() {
  number.fetch_add(1, std::memory_order_relaxed);
  mutex.unlock();
}

[[maybe_unused]] const int registered = pthread_atfork(before_fork, in_parent, in_child);

}  // namespace

std::uint64_t process_number() { return number.load(std::memory_order_relaxed); }

std::mutex& handles_mutex() { return mutex; }

}  // namespace fllm
