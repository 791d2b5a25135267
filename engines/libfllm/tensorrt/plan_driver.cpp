// The driver over TensorRT's runtime, or TensorRT-RTX's: all of libfllm_tensorrt.
#include "tensorrt/plan_driver.hpp"

#include <NvInferRuntime.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <string>

namespace fllm::tensorrt {

namespace {

constexpr int kOk = 0, kBundle = 4, kMemory = 5, kHardware = 6;  // of fllm::Status

// TensorRT's functions return false or null; the reasons are in what it logged before.
class Log : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const nvinfer1::AsciiChar* message) noexcept override {
    if (severity > Severity::kERROR) return;
    try {
      const std::lock_guard lock(mutex_);
      if (errors_.size() == kMost) errors_.pop_front();
      errors_.emplace_back(message);
    } catch (const std::bad_alloc&) {
      // a reason less; the failure itself is told all the same
    }
  }

  std::string take() {
    const std::lock_guard lock(mutex_);
    std::string all;
    for (const std::string& error : errors_) all += (all.empty() ? "" : "; ") + error;
    errors_.clear();
    return all;
  }

 private:
  static constexpr std::size_t kMost = 4;
  std::mutex mutex_;
  std::deque<std::string> errors_;
};

Log& the_log() {
  static Log log;
  return log;
}

thread_local char last_failure[512] = "";

int outcome(bool succeeded, int otherwise, const char* call) {
  if (succeeded) return kOk;
  const std::string reasons = the_log().take();
  std::snprintf(last_failure, sizeof last_failure, "%s: %s", call,
                reasons.empty() ? "no reason given" : reasons.c_str());
  return otherwise;
}

struct Plan {
  std::unique_ptr<nvinfer1::IRuntime> runtime;
  std::unique_ptr<nvinfer1::ICudaEngine> engine;
};

nvinfer1::ICudaEngine& engine_of(void* plan) { return *static_cast<Plan*>(plan)->engine; }
nvinfer1::IExecutionContext& context_of(void* context) { return *static_cast<nvinfer1::IExecutionContext*>(context); }

Shape shape_of(const nvinfer1::Dims& dims) {
  Shape shape{dims.nbDims, {}};
  for (std::int32_t i = 0; i < dims.nbDims; ++i) shape.sizes[i] = dims.d[i];
  return shape;
}

ElementType type_of(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT: return ElementType::float32;
    case nvinfer1::DataType::kINT64: return ElementType::int64;
    case nvinfer1::DataType::kINT8: return ElementType::int8;
    case nvinfer1::DataType::kFP8: return ElementType::fp8;
    default: return ElementType::other;
  }
}

void describe_library(LibraryFacts* facts) {
#ifdef TRT_MAJOR_RTX
  std::snprintf(facts->name, sizeof facts->name, "tensorrt_rtx");
#else
  std::snprintf(facts->name, sizeof facts->name, "tensorrt");
#endif
  facts->version[0] = getInferLibMajorVersion();
  facts->version[1] = getInferLibMinorVersion();
  facts->version[2] = getInferLibPatchVersion();
  facts->version[3] = getInferLibBuildVersion();
}

int load(const void* bytes, std::size_t size, void** loaded) {
  auto plan = std::make_unique<Plan>();
  plan->runtime.reset(nvinfer1::createInferRuntime(the_log()));
  if (const int failed = outcome(plan->runtime != nullptr, kHardware, "createInferRuntime")) return failed;
  plan->engine.reset(plan->runtime->deserializeCudaEngine(bytes, size));
  if (const int failed = outcome(plan->engine != nullptr, kBundle, "deserializeCudaEngine")) return failed;
  *loaded = plan.release();
  return kOk;
}

int describe_tensor(void* plan, std::int32_t number, TensorFacts* facts) {
  const nvinfer1::ICudaEngine& engine = engine_of(plan);
  const char* const name = engine.getIOTensorName(number);
  if (const int failed = outcome(name != nullptr, kBundle, "getIOTensorName")) return failed;
  *facts = {name, shape_of(engine.getTensorShape(name)), type_of(engine.getTensorDataType(name)),
            engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT,
            engine.getTensorLocation(name) == nvinfer1::TensorLocation::kHOST};
  return kOk;
}

int describe_profile(void* plan, std::int32_t profile, const char* input, Shape* least, Shape* most) {
  const nvinfer1::ICudaEngine& engine = engine_of(plan);
  *least = shape_of(engine.getProfileShape(input, profile, nvinfer1::OptProfileSelector::kMIN));
  *most = shape_of(engine.getProfileShape(input, profile, nvinfer1::OptProfileSelector::kMAX));
  return outcome(least->rank >= 0 && most->rank >= 0, kBundle, "getProfileShape");
}

nvinfer1::IExecutionContext* make_context(nvinfer1::ICudaEngine& engine) {
  constexpr auto kMemoryIsOurs = nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED;
#ifdef TRT_MAJOR_RTX
  // Kernels for the shapes in use are made before they are needed: a graph would keep those for any shape for good.
  const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine.createRuntimeConfig());
  if (!config) return nullptr;
  config->setExecutionContextAllocationStrategy(kMemoryIsOurs);
  config->setDynamicShapesKernelSpecializationStrategy(nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER);
  return engine.createExecutionContext(config.get());
#else
  return engine.createExecutionContext(kMemoryIsOurs);
#endif
}

int create_context(void* plan, std::int32_t profile, void* stream, void** made) {
  std::unique_ptr<nvinfer1::IExecutionContext> context(make_context(engine_of(plan)));
  if (const int failed = outcome(context != nullptr, kMemory, "createExecutionContext")) return failed;
  const bool chosen = context->setOptimizationProfileAsync(profile, static_cast<cudaStream_t>(stream));
  if (const int failed = outcome(chosen, kHardware, "setOptimizationProfileAsync")) return failed;
  *made = context.release();
  return kOk;
}

int set_shape(void* context, const char* input, const Shape* shape) {
  nvinfer1::Dims dims{};
  dims.nbDims = shape->rank;
  std::copy_n(shape->sizes, shape->rank, dims.d);
  return outcome(context_of(context).setInputShape(input, dims), kHardware, "setInputShape");
}

int scratch_bytes(void* context, std::size_t* bytes) {
  the_log().take();
  *bytes = context_of(context).updateDeviceMemorySizeForShapes();
  // A plan may need none: 0 is a failure only where something was logged.
  const std::string reasons = the_log().take();
  if (*bytes > 0 || reasons.empty()) return kOk;
  std::snprintf(last_failure, sizeof last_failure, "updateDeviceMemorySizeForShapes: %s", reasons.c_str());
  return kHardware;
}

int give_scratch(void* context, void* memory, std::size_t bytes) {
  context_of(context).setDeviceMemoryV2(memory, static_cast<std::int64_t>(bytes));
  return kOk;
}

constexpr PlanDriver kPlanDriver = {
    .version = kPlanDriverVersion,
    .text = []() -> const char* { return last_failure; },
    .describe_library = describe_library,
    .load = load,
    .unload = [](void* plan) { delete static_cast<Plan*>(plan); },
    .tensors = [](void* plan) { return engine_of(plan).getNbIOTensors(); },
    .describe_tensor = describe_tensor,
    .profiles = [](void* plan) { return engine_of(plan).getNbOptimizationProfiles(); },
    .describe_profile = describe_profile,
    .create_context = create_context,
    .destroy_context = [](void* context) { delete static_cast<nvinfer1::IExecutionContext*>(context); },
    .set_shape = set_shape,
    .scratch_bytes = scratch_bytes,
    .give_scratch = give_scratch,
    .set_address =
        [](void* context, const char* tensor, void* address) {
          return outcome(context_of(context).setTensorAddress(tensor, address), kHardware, "setTensorAddress");
        },
    .enqueue =
        [](void* context, void* stream) {
          return outcome(context_of(context).enqueueV3(static_cast<cudaStream_t>(stream)), kHardware, "enqueueV3");
        },
};

}  // namespace

}  // namespace fllm::tensorrt

extern "C" __attribute__((visibility("default"))) const fllm::tensorrt::PlanDriver* fllm_plan_driver() {
  return &fllm::tensorrt::kPlanDriver;
}
