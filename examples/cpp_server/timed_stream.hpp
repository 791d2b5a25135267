// A socket as cpp-httplib reads and writes it, with one deadline for a whole request.
#pragma once

#include <httplib.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <string>

namespace server {

// cpp-httplib's own stream has a limit for each read, so that a client that sends a byte now and then stays for ever.
class TimedStream : public httplib::Stream {
 public:
  TimedStream(int socket, std::chrono::milliseconds limit);

  // A request begins: its last byte must come within the limit.
  void begin() { deadline_ = Clock::now() + limit_; }

  // Whether bytes of the next request have been read already.
  bool has_more() const { return begin_ < end_; }

  // Whether the client stopped in the middle of a request, by its time or by its end.
  bool broken() const { return broken_; }

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* place, std::size_t bytes) override;
  ssize_t write(const char* data, std::size_t bytes) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

 private:
  using Clock = std::chrono::steady_clock;

  int socket_;
  std::chrono::milliseconds limit_;
  Clock::time_point deadline_;
  std::array<char, 16384> buffer_;
  std::size_t begin_ = 0, end_ = 0;
  bool broken_ = false;
};

}  // namespace server
