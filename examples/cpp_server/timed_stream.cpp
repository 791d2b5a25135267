#include "timed_stream.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace server {

namespace {

bool ready(int socket, short event, std::chrono::milliseconds most) {
  pollfd wanted{socket, event, 0};
  int found;
  do {
    found = poll(&wanted, 1, static_cast<int>(std::max<std::chrono::milliseconds::rep>(0, most.count())));
  } while (found < 0 && errno == EINTR);
  return found > 0;
}

}  // namespace

TimedStream::TimedStream(int socket, std::chrono::milliseconds limit) : socket_(socket), limit_(limit) { begin(); }

bool TimedStream::is_readable() const {
  return has_more() ||
         ready(socket_, POLLIN, std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()));
}

bool TimedStream::is_writable() const { return ready(socket_, POLLOUT, limit_); }

ssize_t TimedStream::read(char* place, std::size_t bytes) {
  if (!has_more()) {
    const ssize_t got = is_readable() ? recv(socket_, buffer_.data(), buffer_.size(), 0) : -1;
    if (got <= 0) {
      broken_ = true;
      return got;
    }
    begin_ = 0;
    end_ = static_cast<std::size_t>(got);
  }
  const std::size_t taken = std::min(bytes, end_ - begin_);
  std::memcpy(place, buffer_.data() + begin_, taken);
  begin_ += taken;
  return static_cast<ssize_t>(taken);
}

ssize_t TimedStream::write(const char* data, std::size_t bytes) {
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t sent = send(socket_, data + done, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      done += static_cast<std::size_t>(sent);
    } else if (errno != EAGAIN && errno != EINTR) {
      return -1;
    } else if (!is_writable()) {
      return -1;
    }
  }
  return static_cast<ssize_t>(bytes);
}

// Nothing here tells clients apart by their addresses.
void TimedStream::get_remote_ip_and_port(std::string&, int&) const {}
void TimedStream::get_local_ip_and_port(std::string&, int&) const {}

}  // namespace server
