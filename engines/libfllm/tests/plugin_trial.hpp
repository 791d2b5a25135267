// A plugin as a plan has it, and a tile with its items to try it on.
#pragma once

#include <NvInferRuntime.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "check.hpp"
#include "search/query.hpp"

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

namespace trial {

using namespace nvinfer1;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Keeps the errors that a plugin logs.
class Log : public ILogger, public ILoggerFinder {
 public:
  void log(Severity, const char* text) noexcept override { last = text; }
  ILogger* findLogger() override { return this; }
  bool tells(const char* part) const { return last.find(part) != std::string::npos; }

  std::string last;
};
inline Log logged;

// Of exactly so many numbers, so that a sanitizer sees what lies beyond; they begin as a GPU's memory does.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t n, unsigned char garbage = 0xA5) : size_(n) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, std::max<std::size_t>(1, n * sizeof(T))) != 0) std::abort();
    std::memset(memory, garbage, n * sizeof(T));
    data_.reset(static_cast<T*>(memory));
  }
  T* data() { return data_.get(); }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  const T& operator[](std::size_t i) const { return data_.get()[i]; }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_;
};

inline IPluginCreatorV3One& creator() {
  std::int32_t count = 0;
  IPluginCreatorInterface* const* const creators = getCreators(count);
  CHECK(count == 1);
  return *static_cast<IPluginCreatorV3One*>(creators[0]);
}

using Plugin = std::unique_ptr<IPluginV3>;

inline Plugin plugin_of(std::int32_t k) {
  const PluginField field{"k", &k, PluginFieldType::kINT32, 1};
  const PluginFieldCollection fields{1, &field};
  return Plugin(creator().createPlugin("scan", &fields, TensorRTPhase::kBUILD));
}

inline IPluginV3OneBuild& build_of(IPluginV3& plugin) {
  return *static_cast<IPluginV3OneBuild*>(plugin.getCapabilityInterface(PluginCapabilityType::kBUILD));
}
inline IPluginV3OneRuntime& runtime_of(IPluginV3& plugin) {
  return *static_cast<IPluginV3OneRuntime*>(plugin.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

// As a plan does it: the fields are written down, and a plugin is made from them where the plan is read.
inline Plugin read_again(IPluginV3& plugin) {
  const PluginFieldCollection* const fields = runtime_of(plugin).getFieldsToSerialize();
  return Plugin(creator().createPlugin("scan", fields, TensorRTPhase::kRUNTIME));
}

struct Case {
  bool fp8;
  std::size_t rows, dim, items, k;
  std::int64_t valid;
  bool bias = false;
  int largest = 127;       // of the int8 codes; small ones make ties
  std::size_t late = 0;    // a row whose score is e^100 times as probable as any other's; 0: none
  float magnitude = 1.0f;  // of the item vectors
  float row_scale = 1.0f;  // of the rows' scales
  bool zeros = false;      // the first item vector has nothing but zeros
  bool cancelled = false;  // biases cancel the first item's products; its logsumexp is then one of rounding
};

struct Found {
  float score;
  std::int64_t row;
  bool operator==(const Found&) const = default;
};

inline double fp8_value(std::uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

// A tile and its items, and room for answers.
class Trial {
 public:
  explicit Trial(const Case& wanted)
      : case_(wanted),
        codes_(wanted.rows * wanted.dim),
        scales_(wanted.rows),
        bias_(wanted.rows),
        vectors_(wanted.items * wanted.dim),
        valid_(1),
        scores_(wanted.items * wanted.k),
        rows_(wanted.items * wanted.k),
        m_(wanted.items),
        l_(wanted.items) {
    std::mt19937 random(static_cast<unsigned>(wanted.rows + 31 * wanted.dim + 7 * wanted.items + wanted.k));
    const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    for (std::size_t i = 0; i < codes_.size(); ++i) {
      const int code = wanted.fp8 ? draw(0, 1) * 128 + draw(0, 0x7E) : draw(-wanted.largest, wanted.largest);
      codes_[i] = static_cast<std::int8_t>(code);
    }
    for (std::size_t i = 0; i < vectors_.size(); ++i) {
      vectors_[i] = wanted.magnitude * static_cast<float>(draw(-10000, 10000)) * 1e-4f;
      if (wanted.zeros && i < wanted.dim) vectors_[i] = 0.0f;
    }
    const float norm = (wanted.fp8 ? 150.0f : static_cast<float>(std::max(1, wanted.largest))) *
                       std::sqrt(static_cast<float>(wanted.dim));
    for (std::size_t row = 0; row < wanted.rows; ++row) {
      // What lies beyond the valid rows must not matter: it is not a number.
      const bool there = static_cast<std::int64_t>(row) < wanted.valid;
      const float scale = wanted.row_scale * (wanted.largest == 127 ? 8e-3f * static_cast<float>(draw(1, 1000)) : 8.0f);
      scales_[row] = there ? scale / norm : NAN;
      bias_[row] = there ? static_cast<float>(draw(-8, 8)) * 0.25f : NAN;
    }
    if (wanted.late > 0) make_late();
    if (wanted.cancelled) cancel();
    valid_[0] = wanted.valid;
  }

  void run(IPluginV3& plugin) {
    const std::vector<PluginTensorDesc> in = inputs(), out = outputs();
    const std::vector<DynamicPluginTensorDesc> most = profile(in);
    IPluginV3OneRuntime& runtime = runtime_of(plugin);
    const auto count = static_cast<std::int32_t>(in.size());
    CHECK(build_of(plugin).configurePlugin(most.data(), count, nullptr, 4) == 0);
    CHECK(runtime.onShapeChange(in.data(), count, out.data(), 4) == 0);
    DeviceArray<std::uint8_t> workspace(build_of(plugin).getWorkspaceSize(most.data(), count, nullptr, 4), 0xFF);
    for (const unsigned char garbage : {0xFF, 0x3C}) {  // the second time the workspace is what the first has left
      forget(garbage);
      const void* const from[] = {codes_.data(), scales_.data(), valid_.data(), vectors_.data(), bias_.data()};
      void* const to[] = {scores_.data(), rows_.data(), m_.data(), l_.data()};
      CHECK(runtime.enqueue(in.data(), out.data(), from, to, workspace.data(), &queue_) == 0);
      queue_.run();
      check();
    }
  }

  std::vector<PluginTensorDesc> inputs() const {
    const auto rows = static_cast<std::int64_t>(case_.rows), dim = static_cast<std::int64_t>(case_.dim);
    std::vector<PluginTensorDesc> all = {
        {{2, {rows, dim}}, case_.fp8 ? DataType::kFP8 : DataType::kINT8, TensorFormat::kLINEAR, 0},
        {{1, {rows}}, DataType::kFLOAT, TensorFormat::kLINEAR, 0},
        {{0, {}}, DataType::kINT64, TensorFormat::kLINEAR, 0},
        {{2, {static_cast<std::int64_t>(case_.items), dim}}, DataType::kFLOAT, TensorFormat::kLINEAR, 0}};
    if (case_.bias) all.push_back(all[1]);
    return all;
  }
  std::vector<PluginTensorDesc> outputs() const {
    const auto items = static_cast<std::int64_t>(case_.items), k = static_cast<std::int64_t>(case_.k);
    return {{{2, {items, k}}, DataType::kFLOAT, TensorFormat::kLINEAR, 0},
            {{2, {items, k}}, DataType::kINT64, TensorFormat::kLINEAR, 0},
            {{1, {items}}, DataType::kFLOAT, TensorFormat::kLINEAR, 0},
            {{1, {items}}, DataType::kFLOAT, TensorFormat::kLINEAR, 0}};
  }
  static std::vector<DynamicPluginTensorDesc> profile(const std::vector<PluginTensorDesc>& tensors) {
    std::vector<DynamicPluginTensorDesc> all;
    for (const PluginTensorDesc& tensor : tensors) all.push_back({tensor, tensor.dims, tensor.dims, tensor.dims});
    return all;
  }

 private:
  // The first item's vector as a row, times what makes the score 130 where others are below 30.
  void make_late() {
    double norm = 0;
    for (std::size_t j = 0; j < case_.dim; ++j) {
      const float z = vectors_[j] / case_.magnitude;
      const int one = case_.fp8 ? 0x38 : 1, minus_one = case_.fp8 ? 0xB8 : -1;
      codes_[case_.late * case_.dim + j] = static_cast<std::int8_t>(z < 0 ? minus_one : one);
      norm += std::abs(z);
    }
    scales_[case_.late] = static_cast<float>(130 / norm);
  }

  void cancel() {
    const fllm::Limbs limbs = fllm::quantise(&vectors_[0], case_.dim);
    for (std::size_t row = 0; row < valid(); ++row) {
      bias_[row] = static_cast<float>(-sum(limbs, row) * (static_cast<double>(scales_[row]) * limbs.scale));
    }
  }

  void forget(unsigned char garbage) {
    std::memset(scores_.data(), garbage, scores_.size() * sizeof(float));
    std::memset(rows_.data(), garbage, rows_.size() * sizeof(std::int64_t));
    std::memset(m_.data(), garbage, m_.size() * sizeof(float));
    std::memset(l_.data(), garbage, l_.size() * sizeof(float));
  }

  std::size_t valid() const {
    return static_cast<std::size_t>(std::clamp<std::int64_t>(case_.valid, 0, static_cast<std::int64_t>(case_.rows)));
  }

  // Exact: of whole numbers below 2^53, or of 2^-9 of such.
  double sum(const fllm::Limbs& limbs, std::size_t row) const {
    double sum = 0;
    for (std::size_t j = 0; j < case_.dim; ++j) {
      const std::int8_t code = codes_[row * case_.dim + j];
      sum += (case_.fp8 ? fp8_value(static_cast<std::uint8_t>(code)) : code) * (128 * limbs.high[j] + limbs.low[j]);
    }
    return sum;
  }

  // The valid rows, best first.
  std::vector<Found> expected(std::size_t item) const {
    const fllm::Limbs limbs = fllm::quantise(&vectors_[item * case_.dim], case_.dim);
    std::vector<Found> all;
    for (std::size_t row = 0; row < valid(); ++row) {
      const double bias = case_.bias ? static_cast<double>(bias_[row]) : 0.0;
      const double scaled = sum(limbs, row) * (static_cast<double>(scales_[row]) * limbs.scale);
      const auto score = static_cast<float>(scaled + bias);
      all.push_back({score, static_cast<std::int64_t>(row)});
    }
    std::sort(all.begin(), all.end(),
              [](const Found& a, const Found& b) { return std::tuple(-a.score, a.row) < std::tuple(-b.score, b.row); });
    return all;
  }

  void check() const {
    for (std::size_t item = 0; item < case_.items; ++item) {
      std::vector<Found> all = expected(item);
      double sum = 0;
      for (const Found& one : all) sum += std::exp(static_cast<double>(one.score) - all[0].score);
      CHECK(m_[item] == (all.empty() ? -kInfinity : all[0].score));
      if (all.empty()) {
        CHECK(l_[item] == 0.0f);
      } else if (!case_.cancelled || item > 0) {
        const double exact = all[0].score + std::log(sum), found = m_[item] + std::log(static_cast<double>(l_[item]));
        CHECK(std::abs(found - exact) < 1e-5 * std::max(1.0, std::abs(exact)));
      }
      all.resize(case_.k, {-kInfinity, 0});
      for (std::size_t i = 0; i < case_.k; ++i) {
        const Found found{scores_[item * case_.k + i], rows_[item * case_.k + i]};
        CHECK(found == all[i]);
        if (!(found == all[i])) return;
      }
    }
  }

  Case case_;
  DeviceArray<std::int8_t> codes_;
  DeviceArray<float> scales_, bias_, vectors_;
  DeviceArray<std::int64_t> valid_;
  DeviceArray<float> scores_;
  DeviceArray<std::int64_t> rows_;
  DeviceArray<float> m_, l_;
  fllm::cuda::emulation::Queue queue_;
};

}  // namespace trial
