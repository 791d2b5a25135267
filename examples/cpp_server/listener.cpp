#include "listener.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fllm/fllm.hpp>
#include <memory>
#include <system_error>

#include "timed_stream.hpp"

namespace server {

namespace {

constexpr int kBacklog = 2048;
constexpr std::chrono::milliseconds kLinger{500};  // for requests that are on their way when the server ends

int bound(const addrinfo& address) {
  const int made = socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address.ai_protocol);
  if (made < 0) return -1;
  const int yes = 1;
  setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(made, address.ai_addr, address.ai_addrlen) == 0 && listen(made, kBacklog) == 0) return made;
  close(made);
  return -1;
}

int port_of(int socket) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  getsockname(socket, reinterpret_cast<sockaddr*>(&address), &bytes);
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
  return ntohs(address.ss_family == AF_INET6 ? v6->sin6_port : v4->sin_port);
}

// Lets a client that is still sending read the answer before the connection is gone.
void close_gently(int socket) {
  shutdown(socket, SHUT_WR);
  const auto until = std::chrono::steady_clock::now() + kLinger;
  std::array<char, 16384> unread;
  while (std::chrono::steady_clock::now() < until) {
    pollfd wanted{socket, POLLIN, 0};
    if (poll(&wanted, 1, static_cast<int>(kLinger.count())) <= 0) break;
    if (recv(socket, unread.data(), unread.size(), MSG_DONTWAIT) <= 0) break;
  }
  close(socket);
}

}  // namespace

Listener::Listener(const Limits& limits) : limits_(limits), stop_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Listener::~Listener() {
  if (listening_ >= 0) close(listening_);
  close(stop_event_);
}

int Listener::open(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* list = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list) == 0) {
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(list, freeaddrinfo);
    for (const addrinfo* each = list; each != nullptr && listening_ < 0; each = each->ai_next) {
      listening_ = bound(*each);
    }
  }
  if (listening_ < 0) {
    throw fllm::Error(FLLM_USAGE, "cannot listen on " + host + ":" + std::to_string(port) + ".");
  }
  return port_of(listening_);
}

void Listener::serve() {
  while (!stopping_) {
    pollfd wanted[]{{listening_, POLLIN, 0}, {stop_event_, POLLIN, 0}};
    if (poll(wanted, 2, -1) > 0) accept_waiting();
  }
  // What the system has accepted by now is answered; between the last look and the end lie microseconds.
  accept_waiting();
  close(listening_);
  listening_ = -1;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Listener::stop() {
  stopping_ = true;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_event_, &one, sizeof one);
}

void Listener::accept_waiting() {
  for (;;) {
    const int socket = accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket >= 0) {
      take(socket);
    } else if (errno == EMFILE || errno == ENFILE) {
      const std::lock_guard lock(mutex_);
      make_room();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return;
    }
  }
}

void Listener::take(int socket) {
  const int yes = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  const std::lock_guard lock(mutex_);
  if (connections_.size() >= limits_.connections) make_room();
  connections_.push_back({socket});
  unattended_.push_back(std::prev(connections_.end()));
  // A little more than connections: those that are being closed have threads as well.
  if (idle_threads_ < unattended_.size() && threads_.size() < limits_.connections + 64) {
    if (!begin_thread()) {
      if (threads_.empty()) {
        unattended_.pop_back();
        connections_.pop_back();
        close(socket);
        return;
      }
      make_room();  // the thread of what goes takes this one
    }
  }
  changed_.notify_one();
}

// False where the system allows no further thread.
bool Listener::begin_thread() {
  try {
    threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    return false;
  }
  ++idle_threads_;
  return true;
}

// Ends the connection that has waited longest for the head of a request; its thread then closes it.
void Listener::make_room() {
  const auto waiting = std::min_element(connections_.begin(), connections_.end(), [](const auto& a, const auto& b) {
    return a.idle != b.idle ? a.idle : a.since < b.since;
  });
  if (waiting == connections_.end() || !waiting->idle) return;
  shutdown(waiting->socket, SHUT_RDWR);
  waiting->since = Clock::now();
}

void Listener::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return !unattended_.empty() || ending_; });
    if (unattended_.empty()) return;
    const Place connection = unattended_.front();
    unattended_.pop_front();
    --idle_threads_;
    lock.unlock();
    attend(connection);
    lock.lock();
    const int socket = connection->socket;
    connections_.erase(connection);
    lock.unlock();
    close_gently(socket);
    lock.lock();
    ++idle_threads_;
  }
}

void Listener::attend(Place connection) {
  TimedStream stream(connection->socket, limits_.client);
  const auto head_complete = [&](httplib::Request&) {
    const std::lock_guard lock(mutex_);
    connection->idle = false;
  };
  auto most = limits_.client;
  while (stream.has_more() || await_request(connection->socket, most)) {
    stream.begin();
    const bool last = stopping_;
    bool closed = false;
    if (!process_request(stream, last, closed, head_complete) || closed || last || stream.broken()) return;
    most = limits_.keep_alive;
    const std::lock_guard lock(mutex_);
    connection->idle = true;
    connection->since = Clock::now();
  }
}

// Whether there is something to read; once the server ends, the wait is short.
bool Listener::await_request(int socket, std::chrono::milliseconds most) const {
  pollfd wanted[]{{socket, POLLIN, 0}, {stop_event_, POLLIN, 0}};
  const bool stopping = stopping_;
  if (!stopping && poll(wanted, 2, static_cast<int>(most.count())) <= 0) return false;
  if (wanted[0].revents != 0) return true;
  return poll(wanted, 1, static_cast<int>(std::min(most, kLinger).count())) > 0;
}

}  // namespace server
