// A server around libfllm. SIGTERM and SIGINT end it once the requests under way are answered; SIGHUP, like
// POST /reload, opens the bundle's directory again.
#include <csignal>
#include <cstdio>
#include <thread>

#include "service.hpp"

namespace {

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  return set;
}

void reload(server::Service& service) {
  try {
    service.load();
  } catch (const std::exception&) {
    // The service has said it, and the old bundle stays.
  }
}

// Waits for signals until one of them ends the server.
void obey(server::Service& service, const sigset_t& signals) {
  for (;;) {
    int signal = 0;
    sigwait(&signals, &signal);
    if (signal != SIGHUP) break;
    reload(service);
  }
  service.stop();
}

int run(const server::Options& options) {
  // Blocked in every thread from the start, so that none but the waiting one ever sees them.
  const sigset_t signals = handled_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  server::Service service(options);
  const int port = service.bind();
  std::thread serving([&] { service.serve(); });
  std::fprintf(stderr, "fllm_server: listening on %s:%d\n", options.host.c_str(), port);
  int code = 0;
  try {
    service.load();
    std::fprintf(stderr, "fllm_server: ready\n");
    obey(service, signals);
  } catch (const fllm::Error& failure) {
    std::fprintf(stderr, "fllm_server: %s\n", failure.what());
    code = failure.status();
    service.stop();
  }
  serving.join();
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(server::Options::parse(argc, argv));
  } catch (const fllm::Error& failure) {
    std::fprintf(stderr, "fllm_server: %s\n", failure.what());
    return failure.status();
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "fllm_server: %s\n", failure.what());
    return 1;
  }
}
