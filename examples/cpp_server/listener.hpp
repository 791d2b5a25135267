// Connections of the server: an own listening socket and a thread for each connection, around cpp-httplib's reading of
// requests and writing of answers.
#pragma once

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <list>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace server {

struct Limits {
  std::size_t connections = 1000;            // beyond, the one that has waited longest without a request goes
  std::chrono::milliseconds client{10'000};  // to send a request from its first to its last byte, and to read on
  std::chrono::milliseconds keep_alive{5'000};
};

// cpp-httplib's own loop has a backlog of 5, gives every connection to one of a fixed number of threads for as long as
// it stays open, and drops those that wait for a thread when it ends. Here a stalled client costs a sleeping thread.
class Listener : public httplib::Server {
 public:
  explicit Listener(const Limits& limits);
  ~Listener() override;

  // Binds and listens; port 0 takes any free one. Returns the port. Throws fllm::Error(FLLM_USAGE).
  int open(const std::string& host, int port);

  // Answers until stop(), and returns when the last request that was sent before is answered.
  void serve();

  // Ends serve(). Any thread may call it, before serve() too.
  void stop();

 private:
  using Clock = std::chrono::steady_clock;

  struct Connection {
    int socket;
    bool idle = true;  // no head of a request is complete; guarded by mutex_
    Clock::time_point since = Clock::now();
  };
  using Place = std::list<Connection>::iterator;

  void accept_waiting();
  void take(int socket);
  bool begin_thread();
  void make_room();
  void work();
  void attend(Place connection);
  bool await_request(int socket, std::chrono::milliseconds most) const;

  Limits limits_;
  int listening_ = -1;
  int stop_event_ = -1;  // readable for ever once stop() was called
  std::atomic<bool> stopping_{false};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Connection> connections_;
  std::deque<Place> unattended_;
  std::size_t idle_threads_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace server
