// As much of TensorRT's runtime as the plan driver uses, on the CPU: declarations of our own with the same names. The
// work of a plan is put on the emulated stream and runs as late as it may. It is TensorRT-RTX unless
// FLLM_EMULATE_FULL_TENSORRT is defined.
#pragma once

#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tensorrt/emulation/head.hpp"
#include "tensorrt/emulation/plan_file.hpp"
#include "tensorrt/emulation/types.hpp"

#ifndef FLLM_EMULATE_FULL_TENSORRT
#define TRT_MAJOR_RTX 1
#endif

#ifdef TRT_MAJOR_RTX
inline std::int32_t getInferLibMajorVersion() noexcept { return 1; }
inline std::int32_t getInferLibMinorVersion() noexcept { return 7; }
inline std::int32_t getInferLibPatchVersion() noexcept { return 1; }
inline std::int32_t getInferLibBuildVersion() noexcept { return 116; }
#else
inline std::int32_t getInferLibMajorVersion() noexcept { return 11; }
inline std::int32_t getInferLibMinorVersion() noexcept { return 0; }
inline std::int32_t getInferLibPatchVersion() noexcept { return 0; }
inline std::int32_t getInferLibBuildVersion() noexcept { return 1; }
#endif

namespace nvinfer1 {

enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class TensorLocation : std::int32_t { kDEVICE = 0, kHOST = 1 };
enum class OptProfileSelector : std::int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };
enum class ExecutionContextAllocationStrategy : std::int32_t { kSTATIC = 0, kON_PROFILE_CHANGE = 1, kUSER_MANAGED = 2 };
enum class DynamicShapesKernelSpecializationStrategy : std::int32_t { kLAZY = 0, kEAGER = 1, kNONE = 2 };

namespace emulation {

using fllm::tensorrt::emulation::HeadPlan;
using fllm::tensorrt::emulation::HeadTensors;

constexpr std::int64_t kRows = -2, kBatch = -3;  // sizes that a profile leaves free

struct Tensor {
  const char* name;
  DataType type;
  bool input;
  std::vector<std::int64_t> sizes;
};

inline std::vector<Tensor> tensors_of(const HeadPlan& plan) {
  std::vector<Tensor> all = {{"codes", plan.fp8 ? DataType::kFP8 : DataType::kINT8, true, {kRows, plan.dim}},
                             {"scales", DataType::kFLOAT, true, {kRows}}};
  if (plan.bias) all.push_back({"bias", DataType::kFLOAT, true, {kRows}});
  const Tensor rest[] = {{"valid_rows", DataType::kINT64, true, {}},
                         {"limbs", DataType::kFLOAT, true, {plan.limbs(), kBatch, plan.dim}},
                         {"query_scale", DataType::kFLOAT, true, {kBatch}},
                         {"scores", DataType::kFLOAT, false, {kBatch, plan.k}},
                         {"rows", DataType::kINT64, false, {kBatch, plan.k}},
                         {"m", DataType::kFLOAT, false, {kBatch}},
                         {"l", DataType::kFLOAT, false, {kBatch}}};
  all.insert(all.end(), std::begin(rest), std::end(rest));
  return all;
}

inline Dims dims_of(const std::vector<std::int64_t>& sizes, std::int64_t rows, std::int64_t batch) {
  Dims dims{static_cast<std::int32_t>(sizes.size()), {}};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    dims.d[i] = sizes[i] == kRows ? rows : sizes[i] == kBatch ? batch : sizes[i];
  }
  return dims;
}

// What the process has done, for tests.
struct Counts {
  std::uint64_t enqueued = 0, captured = 0;
};
inline Counts counts;

}  // namespace emulation

class IRuntimeConfig {
 public:
  virtual ~IRuntimeConfig() = default;
  void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy strategy) noexcept { own_ = strategy; }
  ExecutionContextAllocationStrategy getExecutionContextAllocationStrategy() const noexcept { return own_; }
  bool setDynamicShapesKernelSpecializationStrategy(DynamicShapesKernelSpecializationStrategy) noexcept { return true; }

 private:
  ExecutionContextAllocationStrategy own_ = ExecutionContextAllocationStrategy::kSTATIC;
};

class IExecutionContext {
 public:
  IExecutionContext(const emulation::HeadPlan& plan, ILogger& logger) : plan_(plan), logger_(logger) {}
  virtual ~IExecutionContext() = default;

  bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t) noexcept {
    if (profile < 0 || static_cast<std::size_t>(profile) >= plan_.profiles.size()) return fail("no such profile");
    profile_ = &plan_.profiles[static_cast<std::size_t>(profile)];
    return true;
  }

  bool setInputShape(const char* name, const Dims& dims) noexcept {
    for (const emulation::Tensor& tensor : emulation::tensors_of(plan_)) {
      if (std::string(tensor.name) != name || !tensor.input) continue;
      if (static_cast<std::size_t>(dims.nbDims) != tensor.sizes.size()) return fail("another rank");
      for (std::size_t i = 0; i < tensor.sizes.size(); ++i) {
        if (!fits(tensor.sizes[i], dims.d[i])) return fail("a size outside the profile");
      }
      settled_ = false;
      return true;
    }
    return fail("no such input");
  }

  std::size_t updateDeviceMemorySizeForShapes() noexcept { return static_cast<std::size_t>(rows_ * batch_) * 4 + 512; }

  void setDeviceMemoryV2(void* memory, std::int64_t size) noexcept {
    scratch_ = memory;
    scratch_bytes_ = static_cast<std::size_t>(size);
  }

  bool setTensorAddress(const char* name, void* address) noexcept {
    addresses_[name] = address;
    return true;
  }

  // The first call after shapes were set settles them, and cannot be captured.
  bool enqueueV3(cudaStream_t stream) noexcept {
    if (profile_ == nullptr || rows_ == 0 || batch_ == 0) return fail("shapes are not known");
    if (stream->capturing && !settled_) return fail("the shapes are not settled, and the stream is capturing");
    const std::size_t bytes = updateDeviceMemorySizeForShapes();
    if (scratch_ == nullptr || scratch_bytes_ < bytes) return fail("memory was not given");
    for (const emulation::Tensor& tensor : emulation::tensors_of(plan_)) {
      if (addresses_[tensor.name] == nullptr) return fail("a tensor has no address");
    }
    stream->capturing ? ++emulation::counts.captured : ++emulation::counts.enqueued;
    settled_ = true;
    // What lies on the host is read now, and a graph keeps it.
    const std::optional<std::int64_t> kept =
        plan_.valid_rows_on_host ? std::optional(*tensors().valid_rows) : std::nullopt;
    stream->work.push_back(
        [plan = plan_, rows = rows_, batch = batch_, own = tensors(), scratch = scratch_, bytes, kept] {
          std::memset(scratch, 0xA5, bytes);
          emulation::HeadTensors with = own;
          if (kept) with.valid_rows = &*kept;
          fllm::tensorrt::emulation::Head(plan, rows, batch, with).run();
        });
    return true;
  }

 private:
  bool fits(std::int64_t size, std::int64_t given) noexcept {
    if (profile_ == nullptr) return false;
    if (size == emulation::kRows) {
      rows_ = given;
      return given >= profile_->least_rows && given <= profile_->most_rows;
    }
    if (size == emulation::kBatch) {
      batch_ = given;
      return given >= profile_->least_batch && given <= profile_->most_batch;
    }
    return size == given;
  }

  bool fail(const char* why) noexcept {
    logger_.log(ILogger::Severity::kERROR, why);
    return false;
  }

  template <typename T>
  T* address(const char* name) noexcept {
    return static_cast<T*>(addresses_[name]);
  }

  emulation::HeadTensors tensors() noexcept {
    return {address<std::uint8_t>("codes"),
            address<float>("scales"),
            address<float>("bias"),
            address<float>("limbs"),
            address<float>("query_scale"),
            address<std::int64_t>("valid_rows"),
            address<float>("scores"),
            address<std::int64_t>("rows"),
            address<float>("m"),
            address<float>("l")};
  }

  const emulation::HeadPlan& plan_;
  ILogger& logger_;
  const fllm::tensorrt::emulation::ProfileRange* profile_ = nullptr;
  std::int64_t rows_ = 0, batch_ = 0;
  bool settled_ = false;
  void* scratch_ = nullptr;
  std::size_t scratch_bytes_ = 0;
  std::map<std::string, void*> addresses_;
};

class ICudaEngine {
 public:
  ICudaEngine(emulation::HeadPlan plan, ILogger& logger)
      : plan_(std::move(plan)), logger_(logger), tensors_(emulation::tensors_of(plan_)) {}
  virtual ~ICudaEngine() = default;

  std::int32_t getNbIOTensors() const noexcept { return static_cast<std::int32_t>(tensors_.size()); }
  const char* getIOTensorName(std::int32_t index) const noexcept {
    return tensors_[static_cast<std::size_t>(index)].name;
  }
  Dims getTensorShape(const char* name) const noexcept { return emulation::dims_of(named(name).sizes, -1, -1); }
  DataType getTensorDataType(const char* name) const noexcept { return named(name).type; }
  TensorIOMode getTensorIOMode(const char* name) const noexcept {
    return named(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  TensorLocation getTensorLocation(const char* name) const noexcept {
    const bool host = plan_.valid_rows_on_host && std::string(name) == "valid_rows";
    return host ? TensorLocation::kHOST : TensorLocation::kDEVICE;
  }
  std::int32_t getNbOptimizationProfiles() const noexcept { return static_cast<std::int32_t>(plan_.profiles.size()); }
  Dims getProfileShape(const char* name, std::int32_t profile, OptProfileSelector which) const noexcept {
    const auto& range = plan_.profiles[static_cast<std::size_t>(profile)];
    const bool most = which != OptProfileSelector::kMIN;
    return emulation::dims_of(named(name).sizes, most ? range.most_rows : range.least_rows,
                              most ? range.most_batch : range.least_batch);
  }

  IRuntimeConfig* createRuntimeConfig() noexcept { return new IRuntimeConfig; }
  IExecutionContext* createExecutionContext(IRuntimeConfig* config) noexcept {
    return createExecutionContext(config->getExecutionContextAllocationStrategy());
  }
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept {
    if (strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED) return new IExecutionContext(plan_, logger_);
    logger_.log(ILogger::Severity::kERROR, "contexts with memory of their own are not emulated");
    return nullptr;
  }

 private:
  const emulation::Tensor& named(const std::string& name) const {
    for (const emulation::Tensor& tensor : tensors_) {
      if (name == tensor.name) return tensor;
    }
    std::abort();
  }

  emulation::HeadPlan plan_;
  ILogger& logger_;
  std::vector<emulation::Tensor> tensors_;
};

class IRuntime {
 public:
  explicit IRuntime(ILogger& logger) : logger_(logger) {}
  virtual ~IRuntime() = default;

  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept {
    emulation::HeadPlan plan;
    if (fllm::tensorrt::emulation::read(blob, size, plan)) return new ICudaEngine(std::move(plan), logger_);
    logger_.log(ILogger::Severity::kERROR, "the bytes are not a plan's");
    return nullptr;
  }

 private:
  ILogger& logger_;
};

inline IRuntime* createInferRuntime(ILogger& logger) noexcept { return new IRuntime(logger); }

}  // namespace nvinfer1
