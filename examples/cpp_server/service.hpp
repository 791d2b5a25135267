// The HTTP interface: POST /topk, POST /reload, GET /healthz, GET /metrics.
#pragma once

#include <httplib.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "metrics.hpp"
#include "options.hpp"
#include "served_bundle.hpp"

namespace server {

class Service {
 public:
  explicit Service(const Options& options);

  // Binds and returns the port. Throws fllm::Error(FLLM_USAGE): the address is taken.
  int bind();

  // Answers until stop() is called and the requests under way are done. Not ready before the first load().
  void serve();

  // Opens the bundle, warms it up and puts it in place of the current one; requests under way end on the old one, which
  // also stays where opening fails. Throws fllm::Error.
  void load();

  // Refuses new requests and lets serve() return once those under way are answered.
  void stop();

 private:
  std::shared_ptr<const ServedBundle> current() const;
  void routes();
  void topk(const httplib::Request& request, httplib::Response& response, const httplib::ContentReader& read);
  void reload(httplib::Response& response);
  void health(httplib::Response& response) const;

  Options options_;
  Metrics metrics_;
  httplib::Server http_;
  std::mutex loading_;  // one load at a time
  mutable std::mutex mutex_;
  std::shared_ptr<const ServedBundle> bundle_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> served_{false};
};

}  // namespace server
