// What GET /metrics tells, in Prometheus' text format.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace server {

// Stages of an answer whose times are counted.
enum class Stage { tokenise, encode, scan, total };

// Safe to use from many threads at once.
class Metrics {
 public:
  void count_request(int status);
  void count_time(Stage stage, double milliseconds);
  void count_item(double coverage, bool complete);
  void count_reload(bool succeeded);

  std::string text(bool ready, std::int64_t generation, std::uint64_t rows) const;

 private:
  static constexpr std::array<double, 15> kBoundsMs{0.1, 0.25, 0.5, 1,   2.5,  5,    10,   25,
                                                    50,  100,  250, 500, 1000, 2500, 10000};
  struct Histogram {
    std::array<std::atomic<std::uint64_t>, kBoundsMs.size() + 1> buckets{};  // the last one: above all bounds
    std::atomic<std::uint64_t> nanoseconds{0};
  };

  std::array<std::atomic<std::uint64_t>, 600> requests_{};  // by status
  std::array<Histogram, 4> times_{};
  std::atomic<std::uint64_t> items_{0}, incomplete_items_{0};
  std::atomic<double> coverage_{0};
  std::atomic<std::uint64_t> reloads_{0}, failed_reloads_{0};
};

}  // namespace server
