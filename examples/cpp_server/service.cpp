#include "service.hpp"

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

namespace server {

namespace {

using nlohmann::json;

constexpr const char* kJson = "application/json";
constexpr std::chrono::milliseconds kKeepAlive{15'000};
constexpr std::size_t kKeepAliveRequests = 1'000'000;  // on one connection

Limits connection_limits(const Options& options) {
  return {options.connections, std::chrono::milliseconds(options.client_ms), kKeepAlive};
}

// A refused request is the caller's fault, missing memory passes, everything else is ours.
int http_status(fllm_status status) {
  switch (status) {
    case FLLM_USAGE: return 400;
    case FLLM_MEMORY: return 503;
    default: return 500;
  }
}

// One word for programs, as the Python server has it.
const char* kind_of(int status) {
  switch (status) {
    case 400: return "UsageError";
    case 413: return "TooLarge";
    case 415: return "Unsupported";
    case 429: return "Overloaded";
    case 503: return "Unavailable";
    default: return "Internal";
  }
}

void refuse(httplib::Response& response, int status, const std::string& message) {
  response.status = status;
  if (status == 429 || status == 503) response.set_header("Retry-After", "1");
  const json failure{{"kind", kind_of(status)}, {"message", message}};
  // A message may quote bytes of the request that are not UTF-8.
  response.set_content(json{{"error", failure}}.dump(-1, ' ', false, json::error_handler_t::replace), kJson);
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

Service::Service(const Options& options)
    : options_(options), http_(connection_limits(options)), workers_(static_cast<std::ptrdiff_t>(options.workers)) {
  http_.set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(kKeepAlive).count());
  http_.set_keep_alive_max_count(kKeepAliveRequests);
  http_.set_payload_max_length(options.body_bytes);
  http_.set_post_routing_handler([this](const auto&, httplib::Response& response) {
    if (stopping_) response.set_header("Connection", "close");
  });
  routes();
}

void Service::routes() {
  using Reader = httplib::ContentReader;
  http_.Post("/v1/topk", [this](const httplib::Request& request, httplib::Response& response, const Reader& read) {
    topk(request, response, read);
    metrics_.count_request(response.status);
  });
  http_.Post("/v1/reload", [this](const httplib::Request& request, httplib::Response& response, const Reader& read) {
    reload(request, response, read);
  });
  http_.Get("/healthz", [](const httplib::Request&, httplib::Response& response) {
    response.set_content(json{{"alive", true}}.dump(), kJson);
  });
  http_.Get("/readyz", [this](const httplib::Request&, httplib::Response& response) { readiness(response); });
  http_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) { metrics(response); });
}

std::shared_ptr<const ServedBundle> Service::current() const {
  const std::lock_guard lock(mutex_);
  return bundle_;
}

// Reads the body of a request, or refuses it.
bool Service::read_body(const httplib::Request& request, httplib::Response& response,
                        const httplib::ContentReader& read, std::string& body) const {
  response.status = 200;
  if (request.is_multipart_form_data()) {
    refuse(response, 400, "the body is a form; expected JSON.");
    return false;
  }
  if (request.has_header("Content-Encoding")) {
    refuse(response, 415, "the body is compressed; expected no Content-Encoding.");
    return false;
  }
  // Without a length the library would wait for the client's end.
  if (!request.has_header("Content-Length") && !request.has_header("Transfer-Encoding")) return true;
  bool too_large = false;
  const bool complete = read([&](const char* data, std::size_t bytes) {
    // The library's own limit holds for bodies whose length is announced only.
    too_large = bytes > options_.body_bytes - body.size();
    if (!too_large) body.append(data, bytes);
    return !too_large;
  });
  if (too_large || response.status == 413) {
    refuse(response, 413, "the body has more than " + std::to_string(options_.body_bytes) + " bytes.");
  } else if (!complete) {
    refuse(response, 400, "the body ended early.");
  }
  return complete && !too_large;
}

void Service::topk(const httplib::Request& request, httplib::Response& response, const httplib::ContentReader& read) {
  std::string body;
  if (!read_body(request, response, read, body)) return;
  const std::size_t before = in_server_.fetch_add(1);
  if (before >= options_.workers + options_.waiting) {
    refuse(response, 429, std::to_string(before) + " requests are in the server already. Send fewer at once.");
  } else {
    workers_.acquire();
    answer(body, response);
    workers_.release();
  }
  in_server_.fetch_sub(1);
}

void Service::answer(const std::string& body, httplib::Response& response) {
  const auto bundle = current();
  if (!bundle) return refuse(response, 503, "the bundle is being opened. Try again.");
  guarded(response, [&] {
    const Request wanted = Request::parse(body, options_);
    response.set_content(bundle->answer(wanted, metrics_), kJson);
  });
}

void Service::reload(const httplib::Request& request, httplib::Response& response, const httplib::ContentReader& read) {
  std::string body;
  if (!read_body(request, response, read, body)) return;
  if (!body.empty()) return refuse(response, 400, "the request has a body; this server opens its own path alone.");
  guarded(response, [&] {
    load();
    response.set_content(json{{"generation", current()->facts().generation}}.dump(), kJson);
  });
}

void Service::readiness(httplib::Response& response) const {
  const auto bundle = current();
  const bool ready = bundle && !stopping_;
  response.status = ready ? 200 : 503;
  response.set_content(json{{"ready", ready}, {"generation", bundle ? bundle->facts().generation : 0}}.dump(), kJson);
}

void Service::metrics(httplib::Response& response) const {
  const auto bundle = current();
  const fllm_table_info none = FLLM_TABLE_INFO_INIT;
  const fllm_table_info& facts = bundle ? bundle->facts() : none;
  response.set_content(metrics_.text(bundle && !stopping_, facts.generation, facts.rows), "text/plain; version=0.0.4");
}

void Service::load() {
  const std::lock_guard one_at_a_time(loading_);
  const bool first = current() == nullptr;
  try {
    auto next = std::make_shared<const ServedBundle>(options_);
    next->warm_up();
    const std::lock_guard lock(mutex_);
    bundle_ = std::move(next);
  } catch (const std::exception& failure) {
    if (!first) {
      metrics_.count_reload(false);
      std::fprintf(stderr, "fllm_server: reload failed, the old bundle stays: %s\n", failure.what());
    }
    throw;
  }
  if (first) return;
  metrics_.count_reload(true);
  std::fprintf(stderr, "fllm_server: reloaded: generation %llu\n",
               static_cast<unsigned long long>(current()->facts().generation));
}

int Service::bind() { return http_.open(options_.host, options_.port); }

void Service::serve() { http_.serve(); }

void Service::stop() {
  stopping_ = true;
  http_.stop();
}

}  // namespace server
