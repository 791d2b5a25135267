#include "encoder/onnx_session.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <mutex>

#include "machine/environment.hpp"
#include "status.hpp"

namespace fllm {

namespace {

// Every function used here is in this version of the interface and in all later ones.
constexpr std::uint32_t kApiVersion = 17;
static_assert(kApiVersion <= ORT_API_VERSION, "the headers of ONNX Runtime are too old");

constexpr const char* kLibrary = "libonnxruntime.so.1";
constexpr std::array<const char*, 2> kInputs{"input_ids", "attention_mask"};
constexpr const char* kOutput = "item_vector";

void switch_telemetry_off() {
  static std::once_flag once;
  std::call_once(once, [] {
    for (const char* name : {"ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"}) setenv(name, "1", 1);
  });
}

constexpr const char* kNoGpu = "ONNX Runtime cannot run the encoder on the GPU";

// Puts the CUDA execution provider before the CPU's.
void use_cuda(const OnnxRuntime& runtime, OrtSessionOptions* session, int gpu) {
  const OrtApi& api = runtime.api();
  const auto check = [&](OrtStatus* status) { runtime.check(status, Status::hardware, kNoGpu); };
  OrtCUDAProviderOptionsV2* raw = nullptr;
  check(api.CreateCUDAProviderOptions(&raw));
  const OrtOwned<OrtCUDAProviderOptionsV2> options(raw, {api.ReleaseCUDAProviderOptions});
  const std::string number = std::to_string(gpu);
  const char* const key = "device_id";
  const char* const value = number.c_str();
  check(api.UpdateCUDAProviderOptions(raw, &key, &value, 1));
  check(api.SessionOptionsAppendExecutionProvider_CUDA_V2(session, raw));
}

}  // namespace

OnnxRuntime::OnnxRuntime(const std::string& path) {
  const std::string named = path.empty() ? environment::text(environment::kOnnxRuntime) : path;
  const std::string library = named.empty() ? kLibrary : named;
  switch_telemetry_off();
  void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    throw Error(Status::hardware,
                sentence("ONNX Runtime cannot be loaded: " + std::string(dlerror()), "its shared library",
                         "Set its path by the option onnxruntime or by FLLM_ONNXRUNTIME; the Python package "
                         "onnxruntime has one in its folder capi"));
  }
  using GetApiBase = const OrtApiBase* (*)();
  const auto get_base = reinterpret_cast<GetApiBase>(dlsym(handle, "OrtGetApiBase"));
  if (get_base == nullptr) {
    throw Error(Status::hardware, sentence(library + " has no OrtGetApiBase", "ONNX Runtime's shared library"));
  }
  version_ = get_base()->GetVersionString();
  api_ = get_base()->GetApi(kApiVersion);
  if (api_ == nullptr) {
    throw Error(Status::hardware,
                sentence(library + " is ONNX Runtime " + version_, "1." + std::to_string(kApiVersion) + " or later"));
  }
}

void OnnxRuntime::check(OrtStatus* status, Status cause, const std::string& what) const {
  if (status == nullptr) return;
  const std::string message = what + " (" + api_->GetErrorMessage(status) + ")";
  api_->ReleaseStatus(status);
  throw Error(cause, sentence(message));
}

OnnxSession::OnnxSession(const OnnxRuntime& runtime, const std::string& model, const OnnxPlace& place)
    : runtime_(runtime), model_(model) {
  if (!std::filesystem::is_regular_file(model)) {
    throw Error(Status::bundle, sentence(model + " is missing", "the exported encoder", "Build the bundle again"));
  }
  const OrtApi& api = runtime.api();
  const auto check = [&](OrtStatus* status) { runtime.check(status, Status::internal, "ONNX Runtime failed"); };
  OrtEnv* env = nullptr;
  check(api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "fllm", &env));
  env_ = OrtOwned<OrtEnv>(env, {api.ReleaseEnv});
  check(api.DisableTelemetryEvents(env));
  OrtMemoryInfo* memory = nullptr;
  check(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  memory_ = OrtOwned<OrtMemoryInfo>(memory, {api.ReleaseMemoryInfo});
  OrtSessionOptions* raw_options = nullptr;
  check(api.CreateSessionOptions(&raw_options));
  const OrtOwned<OrtSessionOptions> options(raw_options, {api.ReleaseSessionOptions});
  check(api.SetIntraOpNumThreads(raw_options, static_cast<int>(place.threads)));
  check(api.SetInterOpNumThreads(raw_options, 1));
  check(api.SetSessionLogSeverityLevel(raw_options, ORT_LOGGING_LEVEL_ERROR));
  if (place.cuda) use_cuda(runtime, raw_options, place.gpu);
  open(raw_options, place.cuda);
}

void OnnxSession::open(const OrtSessionOptions* options, bool cuda) {
  const OrtApi& api = runtime_.api();
  OrtSession* session = nullptr;
  OrtStatus* const status = api.CreateSession(env_.get(), model_.c_str(), options, &session);
  // Files that are no model are told by these codes; on a GPU, the rest is the GPU's.
  const OrtErrorCode code = status == nullptr ? ORT_OK : api.GetErrorCode(status);
  const bool unread = code == ORT_NO_SUCHFILE || code == ORT_NO_MODEL || code == ORT_INVALID_PROTOBUF ||
                      code == ORT_INVALID_GRAPH || code == ORT_MODEL_LOADED;
  const bool no_gpu = cuda && !unread;
  runtime_.check(status, no_gpu ? Status::hardware : Status::bundle,
                 no_gpu ? kNoGpu : "ONNX Runtime cannot open " + model_);
  session_ = OrtOwned<OrtSession>(session, {api.ReleaseSession});
}

OrtOwned<OrtValue> OnnxSession::input(const std::vector<std::int64_t>& numbers, const Prompt::Batch& batch) const {
  const std::array<std::int64_t, 2> shape{static_cast<std::int64_t>(batch.items),
                                          static_cast<std::int64_t>(batch.longest)};
  OrtValue* value = nullptr;
  // The model only reads its inputs; the interface has no pointer to constant numbers.
  runtime_.check(runtime_.api().CreateTensorWithDataAsOrtValue(
                     memory_.get(), const_cast<std::int64_t*>(numbers.data()), numbers.size() * sizeof(std::int64_t),
                     shape.data(), shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &value),
                 Status::internal, "ONNX Runtime failed");
  return OrtOwned<OrtValue>(value, {runtime_.api().ReleaseValue});
}

void OnnxSession::run(const Prompt::Batch& batch, std::size_t dim, float* z) const {
  const OrtOwned<OrtValue> ids = input(batch.input_ids, batch), mask = input(batch.attention_mask, batch);
  const std::array<const OrtValue*, 2> inputs{ids.get(), mask.get()};
  OrtValue* raw_output = nullptr;
  runtime_.check(runtime_.api().Run(session_.get(), nullptr, kInputs.data(), inputs.data(), inputs.size(), &kOutput, 1,
                                    &raw_output),
                 Status::usage, "ONNX Runtime cannot run " + model_ + " on these token ids");
  const OrtOwned<OrtValue> output(raw_output, {runtime_.api().ReleaseValue});
  check_shape(output.get(), batch.items, dim);
  void* numbers = nullptr;
  runtime_.check(runtime_.api().GetTensorMutableData(raw_output, &numbers), Status::internal, "ONNX Runtime failed");
  std::copy_n(static_cast<const float*>(numbers), batch.items * dim, z);
}

void OnnxSession::check_shape(const OrtValue* output, std::size_t items, std::size_t dim) const {
  const OrtApi& api = runtime_.api();
  const auto check = [&](OrtStatus* status) { runtime_.check(status, Status::bundle, model_ + " gives no tensor"); };
  OrtTensorTypeAndShapeInfo* raw_info = nullptr;
  check(api.GetTensorTypeAndShape(output, &raw_info));
  const OrtOwned<OrtTensorTypeAndShapeInfo> info(raw_info, {api.ReleaseTensorTypeAndShapeInfo});
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::size_t rank = 0;
  check(api.GetTensorElementType(raw_info, &type));
  check(api.GetDimensionsCount(raw_info, &rank));
  std::array<std::int64_t, 2> shape{};
  if (rank == shape.size()) check(api.GetDimensions(raw_info, shape.data(), rank));
  if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || shape[0] != static_cast<std::int64_t>(items) ||
      shape[1] != static_cast<std::int64_t>(dim)) {
    throw Error(Status::bundle,
                sentence(model_ + " returns item vectors of another type or shape than the manifest says",
                         "float32 [items, " + std::to_string(dim) + "]"));
  }
}

}  // namespace fllm
