#include "service.hpp"

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

namespace server {

namespace {

using nlohmann::json;

constexpr const char* kJson = "application/json";
constexpr time_t kTimeoutSeconds = 10;  // of a client that stops sending or reading
constexpr time_t kKeepAliveSeconds = 2;

// A refused request is the caller's fault, missing memory passes, everything else is ours.
int http_status(fllm_status status) {
  switch (status) {
    case FLLM_USAGE: return 400;
    case FLLM_MEMORY: return 503;
    default: return 500;
  }
}

void refuse(httplib::Response& response, int status, const std::string& message) {
  response.status = status;
  // A message may quote bytes of the request that are not UTF-8.
  response.set_content(json{{"error", message}}.dump(-1, ' ', false, json::error_handler_t::replace), kJson);
}

// Does a request's work; whatever goes wrong becomes an answer.
template <typename Work>
void guarded(httplib::Response& response, Work&& work) {
  try {
    work();
  } catch (const fllm::Error& failure) {
    refuse(response, http_status(failure.status()), failure.what());
  } catch (const std::bad_alloc&) {
    refuse(response, 503, "there is not enough memory. Request fewer users or fewer items.");
  } catch (const std::exception& failure) {
    refuse(response, 500, failure.what());
  }
}

}  // namespace

Service::Service(const Options& options) : options_(options) {
  http_.new_task_queue = [workers = options.workers] { return new httplib::ThreadPool(workers); };
  http_.set_read_timeout(kTimeoutSeconds);
  http_.set_write_timeout(kTimeoutSeconds);
  http_.set_keep_alive_timeout(kKeepAliveSeconds);
  http_.set_payload_max_length(options.body_bytes);
  http_.set_tcp_nodelay(true);
  routes();
}

void Service::routes() {
  http_.Post("/topk",
             [this](const httplib::Request& request, httplib::Response& response, const httplib::ContentReader& read) {
               topk(request, response, read);
               metrics_.count_request(response.status);
             });
  http_.Post("/reload", [this](const httplib::Request&, httplib::Response& response) { reload(response); });
  http_.Get("/healthz", [this](const httplib::Request&, httplib::Response& response) { health(response); });
  http_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
    const auto bundle = current();
    const fllm_table_info none = FLLM_TABLE_INFO_INIT;
    const fllm_table_info& facts = bundle ? bundle->facts() : none;
    response.set_content(metrics_.text(bundle && !stopping_, facts.generation, facts.rows),
                         "text/plain; version=0.0.4");
  });
}

std::shared_ptr<const ServedBundle> Service::current() const {
  const std::lock_guard lock(mutex_);
  return bundle_;
}

void Service::topk(const httplib::Request& request, httplib::Response& response, const httplib::ContentReader& read) {
  response.status = 200;
  if (request.is_multipart_form_data()) return refuse(response, 400, "the body is a form; expected JSON.");
  std::string body;
  bool too_large = false;
  const bool complete = read([&](const char* data, std::size_t bytes) {
    // The library's own limit holds for bodies whose length is announced only.
    too_large = bytes > options_.body_bytes - body.size();
    if (!too_large) body.append(data, bytes);
    return !too_large;
  });
  if (too_large || response.status == 413) {
    return refuse(response, 413, "the body has more than " + std::to_string(options_.body_bytes) + " bytes.");
  }
  if (!complete) return refuse(response, 400, "the body ended early.");
  const auto bundle = current();
  if (!bundle) return refuse(response, 503, "the bundle is being opened. Try again.");
  guarded(response, [&] {
    const Request wanted = Request::parse(body, options_);
    response.set_content(bundle->answer(wanted, metrics_).dump(), kJson);
  });
}

void Service::reload(httplib::Response& response) {
  response.status = 200;
  guarded(response, [&] {
    load();
    response.set_content(json{{"generation", current()->facts().generation}}.dump(), kJson);
  });
}

void Service::health(httplib::Response& response) const {
  const auto bundle = current();
  const bool ready = bundle && !stopping_;
  response.status = ready ? 200 : 503;
  response.set_content(json{{"ready", ready}}.dump(), kJson);
}

void Service::load() {
  const std::lock_guard one_at_a_time(loading_);
  const bool first = current() == nullptr;
  try {
    auto next = std::make_shared<const ServedBundle>(options_);
    next->warm_up();
    const std::lock_guard lock(mutex_);
    bundle_ = std::move(next);
  } catch (...) {
    if (!first) metrics_.count_reload(false);
    throw;
  }
  if (!first) metrics_.count_reload(true);
}

int Service::bind() {
  if (options_.port == 0) {
    const int port = http_.bind_to_any_port(options_.host.c_str());
    if (port > 0) return port;
  } else if (http_.bind_to_port(options_.host.c_str(), options_.port)) {
    return options_.port;
  }
  throw fllm::Error(FLLM_USAGE, "cannot listen on " + options_.host + ":" + std::to_string(options_.port) + ".");
}

void Service::serve() {
  http_.listen_after_bind();
  served_ = true;
}

void Service::stop() {
  stopping_ = true;
  // A server that is told to stop before it listens would not hear it, and listen for ever.
  while (!http_.is_running() && !served_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  http_.stop();
}

}  // namespace server
