// The HTTP interface: POST /v1/topk, POST /v1/reload, GET /healthz, GET /readyz, GET /metrics.
#pragma once

#include <httplib.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <semaphore>
#include <string>

#include "listener.hpp"
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

  // Lets serve() return once every request that was sent before is answered.
  void stop();

 private:
  std::shared_ptr<const ServedBundle> current() const;
  void routes();
  void topk(const httplib::Request& request, httplib::Response& response, const httplib::ContentReader& read);
  void answer(const std::string& body, httplib::Response& response);
  void reload(const httplib::Request& request, httplib::Response& response, const httplib::ContentReader& read);
  void readiness(httplib::Response& response) const;
  void metrics(httplib::Response& response) const;
  bool read_body(const httplib::Request& request, httplib::Response& response, const httplib::ContentReader& read,
                 std::string& body) const;

  Options options_;
  Metrics metrics_;
  Listener http_;
  std::counting_semaphore<> workers_;  // requests that may still be searched
  std::atomic<std::size_t> in_server_{0};
  std::mutex loading_;  // one load at a time
  mutable std::mutex mutex_;
  std::shared_ptr<const ServedBundle> bundle_;
  std::atomic<bool> stopping_{false};
};

}  // namespace server
