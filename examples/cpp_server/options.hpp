// The command line of the server.
#pragma once

#include <cstddef>
#include <string>

namespace server {

struct Options {
  std::string bundle;
  std::string host = "127.0.0.1";
  int port = 8080;                    // 0: any free one
  unsigned threads = 0;               // of one scan and of one encoder call; 0: FLLM_NUM_THREADS or every CPU
  std::size_t workers = 128;          // requests searched at once
  std::size_t waiting = 256;          // requests that wait for a worker, at most
  std::size_t connections = 1000;     // at most
  std::size_t client_ms = 10'000;     // for a client to send a request, and to read on
  std::size_t body_bytes = 4 << 20;   // of a request, at most
  std::size_t items = 256;            // in a request, at most
  std::size_t answer_users = 200000;  // items * k of a request, at most
  std::string onnxruntime;            // path of its library; empty: FLLM_ONNXRUNTIME or the system's

  // Throws fllm::Error(FLLM_USAGE), whose text says how to call the server.
  static Options parse(int argc, char** argv);
};

}  // namespace server
