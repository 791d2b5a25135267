// The driver over the CUDA runtime, and the kernels: all of libfllm_cuda.
#include "cuda/driver.hpp"

#include <cstdio>

#include "cuda/launch.cuh"

namespace fllm::cuda {

namespace {

constexpr int kOk = 0, kMemory = 5, kHardware = 6;  // of fllm::Status

thread_local char last_failure[256] = "";

int outcome(cudaError_t error) {
  if (error == cudaSuccess) return kOk;
  std::snprintf(last_failure, sizeof last_failure, "%s: %s", cudaGetErrorName(error), cudaGetErrorString(error));
  cudaGetLastError();  // those that the device recovers from shall not be found again by the next launch
  return error == cudaErrorMemoryAllocation ? kMemory : kHardware;
}

int describe(DeviceFacts* facts) {
  int device = 0;
  cudaDeviceProp properties;
  if (const int failed = outcome(cudaGetDevice(&device))) return failed;
  if (const int failed = outcome(cudaGetDeviceProperties(&properties, device))) return failed;
  std::size_t free_bytes = 0, total_bytes = 0;
  if (const int failed = outcome(cudaMemGetInfo(&free_bytes, &total_bytes))) return failed;
  std::snprintf(facts->name, sizeof facts->name, "%.63s", properties.name);
  facts->major = properties.major;
  facts->minor = properties.minor;
  facts->processors = static_cast<std::uint32_t>(properties.multiProcessorCount);
  facts->free_bytes = free_bytes;
  facts->total_bytes = total_bytes;
  return kOk;
}

Stream stream_of(void* stream) { return static_cast<Stream>(stream); }
cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

int create_stream(void** made) {
  Stream stream;
  if (const int failed = outcome(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking))) return failed;
  *made = stream;
  return kOk;
}

int create_event(void** made) {
  cudaEvent_t event;
  if (const int failed = outcome(cudaEventCreateWithFlags(&event, cudaEventDisableTiming))) return failed;
  *made = event;
  return kOk;
}

int end_capture(void* stream, void** made) {
  cudaGraph_t captured = nullptr;
  if (const int failed = outcome(cudaStreamEndCapture(stream_of(stream), &captured))) return failed;
  cudaGraphExec_t graph = nullptr;
  const int failed = outcome(cudaGraphInstantiateWithFlags(&graph, captured, 0));
  outcome(cudaGraphDestroy(captured));
  if (failed) return failed;
  *made = graph;
  return kOk;
}

int scan_one_item(const Wave* wave, const Item* item, const Candidates* out, Share* shares, int sample, unsigned blocks,
                  void* stream) {
  launch_scan_one(*wave, *item, *out, shares, sample != 0, blocks, stream_of(stream));
  return outcome(cudaGetLastError());
}

int most_items(Codes kind, std::uint32_t dim, std::uint32_t* items) {
  int device = 0, bytes = 0;
  if (const int failed = outcome(cudaGetDevice(&device))) return failed;
  if (const int failed = outcome(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device))) {
    return failed;
  }
  *items = most_items_together(kind, dim, static_cast<std::size_t>(bytes));
  return kOk;
}

int scan_many_items(const Wave* wave, const ItemBatch* batch, unsigned blocks, void* stream) {
  launch_scan_many(*wave, *batch, blocks, stream_of(stream));
  return outcome(cudaGetLastError());
}

int prune_candidates(const Candidates* items, unsigned count, std::uint8_t* overflowed, void* stream) {
  launch_prune(items, count, overflowed, stream_of(stream));
  return outcome(cudaGetLastError());
}

constexpr Driver kDriver = {
    .version = kDriverVersion,
    .text = []() -> const char* { return last_failure; },
    .count_devices = [](int* count) { return outcome(cudaGetDeviceCount(count)); },
    .use_device = [](int device) { return outcome(cudaSetDevice(device)); },
    .describe = describe,
    .allocate = [](std::size_t bytes, void** pointer) { return outcome(cudaMalloc(pointer, bytes)); },
    .release = [](void* pointer) { outcome(cudaFree(pointer)); },
    .allocate_pinned = [](std::size_t bytes,
                          void** pointer) { return outcome(cudaHostAlloc(pointer, bytes, cudaHostAllocPortable)); },
    .release_pinned = [](void* pointer) { outcome(cudaFreeHost(pointer)); },
    .create_stream = create_stream,
    .destroy_stream = [](void* stream) { outcome(cudaStreamDestroy(stream_of(stream))); },
    .create_event = create_event,
    .destroy_event = [](void* event) { outcome(cudaEventDestroy(event_of(event))); },
    .record = [](void* event, void* stream) { return outcome(cudaEventRecord(event_of(event), stream_of(stream))); },
    .wait = [](void* stream,
               void* event) { return outcome(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0)); },
    .finish = [](void* stream) { return outcome(cudaStreamSynchronize(stream_of(stream))); },
    .finish_event = [](void* event) { return outcome(cudaEventSynchronize(event_of(event))); },
    .copy =
        [](void* to, const void* from, std::size_t bytes, void* stream) {
          return outcome(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)));
        },
    .copy_rows =
        [](void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t bytes,
           std::size_t rows, void* stream) {
          return outcome(
              cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, bytes, rows, cudaMemcpyDefault, stream_of(stream)));
        },
    .begin_capture =
        [](void* stream) {
          return outcome(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal));
        },
    .end_capture = end_capture,
    .launch_graph =
        [](void* graph, void* stream) {
          return outcome(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream)));
        },
    .destroy_graph = [](void* graph) { outcome(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph))); },
    .scan_one = scan_one_item,
    .most_items = most_items,
    .scan_many = scan_many_items,
    .prune = prune_candidates,
};

}  // namespace

}  // namespace fllm::cuda

extern "C" __attribute__((visibility("default"))) const fllm::cuda::Driver* fllm_cuda_driver() {
  return &fllm::cuda::kDriver;
}
