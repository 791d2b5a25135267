#include "metrics.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace server {

namespace {

constexpr std::array<const char*, 4> kStages{"tokenise", "encode", "scan", "total"};

void describe(std::ostream& out, const char* name, const char* type, const char* help) {
  out << "# HELP " << name << ' ' << help << "\n# TYPE " << name << ' ' << type << '\n';
}

template <typename Value>
void write(std::ostream& out, const char* name, const char* type, const char* help, Value value) {
  describe(out, name, type, help);
  out << name << ' ' << value << '\n';
}

// Memory of the process in bytes, mapped files included; 0 where the system does not tell it.
std::uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t all = 0, resident = 0;
  if (!(file >> all >> resident)) return 0;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

void Metrics::count_request(int status) {
  const auto index = static_cast<std::size_t>(std::clamp(status, 0, 599));
  requests_[index].fetch_add(1, std::memory_order_relaxed);
}

void Metrics::count_time(Stage stage, double milliseconds) {
  Histogram& histogram = times_[static_cast<std::size_t>(stage)];
  const auto bound = std::lower_bound(kBoundsMs.begin(), kBoundsMs.end(), milliseconds);
  histogram.buckets[static_cast<std::size_t>(bound - kBoundsMs.begin())].fetch_add(1, std::memory_order_relaxed);
  histogram.nanoseconds.fetch_add(static_cast<std::uint64_t>(std::max(0.0, milliseconds) * 1e6),
                                  std::memory_order_relaxed);
}

void Metrics::count_item(double coverage, bool complete) {
  items_.fetch_add(1, std::memory_order_relaxed);
  if (!complete) incomplete_items_.fetch_add(1, std::memory_order_relaxed);
  coverage_.fetch_add(coverage, std::memory_order_relaxed);
}

void Metrics::count_reload(bool succeeded) {
  (succeeded ? reloads_ : failed_reloads_).fetch_add(1, std::memory_order_relaxed);
}

std::string Metrics::text(bool ready, std::int64_t generation, std::uint64_t rows) const {
  std::ostringstream out;
  out.precision(17);
  describe(out, "fllm_requests_total", "counter", "Requests to /topk by status.");
  std::uint64_t errors = 0;
  for (std::size_t status = 0; status < requests_.size(); ++status) {
    const std::uint64_t count = requests_[status].load();
    if (count == 0) continue;
    if (status >= 400) errors += count;
    out << "fllm_requests_total{status=\"" << status << "\"} " << count << '\n';
  }
  write(out, "fllm_errors_total", "counter", "Requests to /topk that failed.", errors);
  describe(out, "fllm_stage_seconds", "histogram", "Wall time of the stages of an answer.");
  for (std::size_t stage = 0; stage < times_.size(); ++stage) {
    std::uint64_t below = 0;
    for (std::size_t i = 0; i <= kBoundsMs.size(); ++i) {
      below += times_[stage].buckets[i].load();
      out << "fllm_stage_seconds_bucket{stage=\"" << kStages[stage] << "\",le=\"";
      if (i < kBoundsMs.size()) {
        std::ostringstream bound;
        bound << kBoundsMs[i] / 1e3;
        out << bound.str();
      } else {
        out << "+Inf";
      }
      out << "\"} " << below << '\n';
    }
    out << "fllm_stage_seconds_sum{stage=\"" << kStages[stage] << "\"} "
        << static_cast<double>(times_[stage].nanoseconds.load()) / 1e9 << '\n';
    out << "fllm_stage_seconds_count{stage=\"" << kStages[stage] << "\"} " << below << '\n';
  }
  write(out, "fllm_items_total", "counter", "Items answered.", items_.load());
  write(out, "fllm_incomplete_items_total", "counter", "Items whose budget ended before the table.",
        incomplete_items_.load());
  write(out, "fllm_coverage_sum", "counter", "Sum over items of rows scored / rows of the table.", coverage_.load());
  write(out, "fllm_reloads_total", "counter", "Reloads that succeeded.", reloads_.load());
  write(out, "fllm_failed_reloads_total", "counter", "Reloads that failed.", failed_reloads_.load());
  write(out, "fllm_ready", "gauge", "1 while requests are answered.", ready ? 1 : 0);
  write(out, "fllm_generation", "gauge", "Version number of the table.", generation);
  write(out, "fllm_users", "gauge", "Users of the table.", rows);
  write(out, "fllm_resident_bytes", "gauge", "Resident memory of the process.", resident_bytes());
  return out.str();
}

}  // namespace server
