// As much of the CUDA runtime as the driver uses, on the CPU. What is put on a stream runs as late as it may: when the
// stream is finished, or another waits for it. A copy or an order that is missing therefore shows in the answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

namespace fllm::cuda {

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorDevicesUnavailable = 46,
  cudaErrorNoDevice = 100,
  cudaErrorStreamCaptureUnsupported = 900
};
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
enum cudaMemcpyKind { cudaMemcpyDefault = 4 };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocPortable = 1;

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
};

namespace emulation {

inline std::uint64_t setting(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// One lock for everything: kernels share the emulation's variables.
inline std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

inline thread_local int current_device = 0;
inline std::map<int, std::uint64_t> used_bytes;                   // by device
inline std::map<void*, std::pair<int, std::size_t>> allocations;  // device and bytes of each

inline int devices() { return static_cast<int>(setting("FLLM_EMULATED_GPUS", 1)); }
inline std::uint64_t capacity() { return setting("FLLM_EMULATED_GPU_BYTES", std::uint64_t{1} << 30); }

// After so many launches every call fails, as when a device is lost.
inline std::uint64_t launches = 0;
inline bool lost() {
  const std::uint64_t last = setting("FLLM_EMULATED_GPU_LAUNCHES", 0);
  return last > 0 && launches > last;
}

struct Queue {
  std::deque<std::function<void()>> work;
  bool capturing = false;
  std::size_t captured_from = 0;  // where in `work` the graph begins

  void run() {
    while (!work.empty()) run_next();
  }
  void run_next() {
    const std::function<void()> next = std::move(work.front());
    work.pop_front();
    next();
  }
};

struct Mark {
  Queue* queue = nullptr;
  std::uint64_t wanted = 0, reached = 0;

  void reach(std::uint64_t number) {
    while (reached < number) queue->run_next();
  }
};

// Work that was captured on a stream.
using Graph = std::vector<std::function<void()>>;
inline std::uint64_t graph_launches = 0;

inline cudaError_t state() { return lost() ? cudaErrorDevicesUnavailable : cudaSuccess; }

}  // namespace emulation

using Stream = emulation::Queue*;
using cudaEvent_t = emulation::Mark*;
using cudaGraph_t = emulation::Graph*;
using cudaGraphExec_t = emulation::Graph*;

inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    default: return "cudaErrorDevicesUnavailable";
  }
}
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetLastError() { return emulation::state(); }

inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = emulation::devices();
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
inline cudaError_t cudaSetDevice(int device) {
  emulation::current_device = device;
  return emulation::state();
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = emulation::current_device;
  return emulation::state();
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"an emulated GPU", 8, 0, 2};
  return emulation::state();
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 99 << 10;  // bytes of the smallest GPUs
  return emulation::state();
}
inline cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  const emulation::Lock lock(emulation::mutex);
  *total_bytes = emulation::capacity();
  *free_bytes = *total_bytes - emulation::used_bytes[emulation::current_device];
  return emulation::state();
}

inline cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  const emulation::Lock lock(emulation::mutex);
  std::uint64_t& used = emulation::used_bytes[emulation::current_device];
  if (used + bytes > emulation::capacity()) return cudaErrorMemoryAllocation;
  used += bytes;
  if (posix_memalign(pointer, 256, bytes) != 0) return cudaErrorMemoryAllocation;  // no byte more: sanitizers look
  std::memset(*pointer, 0xA5, bytes);                                              // nobody may count on zeros
  emulation::allocations[*pointer] = {emulation::current_device, bytes};
  return emulation::state();
}
inline cudaError_t cudaFree(void* pointer) {
  const emulation::Lock lock(emulation::mutex);
  const auto found = emulation::allocations.find(pointer);
  if (found == emulation::allocations.end()) return cudaSuccess;
  emulation::used_bytes[found->second.first] -= found->second.second;
  emulation::allocations.erase(found);
  std::free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  return posix_memalign(pointer, 256, bytes) != 0 ? cudaErrorMemoryAllocation : emulation::state();
}
inline cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(Stream* stream, unsigned) {
  *stream = new emulation::Queue;
  return emulation::state();
}
inline cudaError_t cudaStreamDestroy(Stream stream) {
  const emulation::Lock lock(emulation::mutex);
  stream->run();
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(Stream stream) {
  const emulation::Lock lock(emulation::mutex);
  if (stream->capturing) return cudaErrorStreamCaptureUnsupported;
  stream->run();
  return emulation::state();
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new emulation::Mark;
  return emulation::state();
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, Stream stream) {
  const emulation::Lock lock(emulation::mutex);
  event->queue = stream;
  const std::uint64_t number = ++event->wanted;
  stream->work.push_back([event, number] { event->reached = number; });
  return emulation::state();
}
inline cudaError_t cudaStreamWaitEvent(Stream stream, cudaEvent_t event, unsigned) {
  const emulation::Lock lock(emulation::mutex);
  stream->work.push_back([event, number = event->wanted] { event->reach(number); });
  return emulation::state();
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const emulation::Lock lock(emulation::mutex);
  event->reach(event->wanted);
  return emulation::state();
}

inline cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                                     std::size_t bytes, std::size_t rows, cudaMemcpyKind, Stream stream) {
  const emulation::Lock lock(emulation::mutex);
  stream->work.push_back([=] {
    for (std::size_t row = 0; row < rows; ++row) {
      std::memcpy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, bytes);
    }
  });
  return emulation::state();
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, Stream stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

inline cudaError_t cudaStreamBeginCapture(Stream stream, cudaStreamCaptureMode) {
  const emulation::Lock lock(emulation::mutex);
  stream->capturing = true;
  stream->captured_from = stream->work.size();
  return emulation::state();
}
inline cudaError_t cudaStreamEndCapture(Stream stream, cudaGraph_t* graph) {
  const emulation::Lock lock(emulation::mutex);
  const auto first = stream->work.begin() + static_cast<std::ptrdiff_t>(stream->captured_from);
  *graph = new emulation::Graph(first, stream->work.end());
  stream->work.erase(first, stream->work.end());
  stream->capturing = false;
  return emulation::state();
}
inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = new emulation::Graph(*graph);
  return emulation::state();
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, Stream stream) {
  const emulation::Lock lock(emulation::mutex);
  ++emulation::launches;
  ++emulation::graph_launches;
  stream->work.insert(stream->work.end(), graph->begin(), graph->end());
  return emulation::state();
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

}  // namespace fllm::cuda
