// What libfllm_cuda offers to libfllm, which loads it when the engine `cuda` is asked for: memory, streams, and
// kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/wave.hpp"

namespace fllm::cuda {

inline constexpr std::uint32_t kDriverVersion = 3;
inline constexpr const char* kDriverSymbol = "fllm_cuda_driver";

struct DeviceFacts {
  char name[64];
  std::int32_t major, minor;  // of the compute capability
  std::uint32_t processors;
  std::uint64_t free_bytes, total_bytes;
};

// Functions return a fllm::Status: ok, memory, or hardware; text() says more about the calling thread's last failure.
// All but the first four act on the device that the calling thread uses. Copies and kernels are put on a stream, a
// cudaStream_t, and have not ended when the call returns.
struct Driver {
  std::uint32_t version;
  const char* (*text)();
  int (*count_devices)(int* count);
  int (*use_device)(int device);

  int (*describe)(DeviceFacts* facts);
  int (*allocate)(std::size_t bytes, void** pointer);
  void (*release)(void* pointer);
  int (*allocate_pinned)(std::size_t bytes, void** pointer);  // host memory that copies need not be staged for
  void (*release_pinned)(void* pointer);
  int (*create_stream)(void** stream);
  void (*destroy_stream)(void* stream);
  int (*create_event)(void** event);
  void (*destroy_event)(void* event);
  int (*record)(void* event, void* stream);
  int (*wait)(void* stream, void* event);  // what is put on the stream from now on comes after the event
  int (*finish)(void* stream);             // returns when all that was put on the stream has ended
  int (*finish_event)(void* event);
  int (*copy)(void* to, const void* from, std::size_t bytes, void* stream);
  // Of `rows` rows the first `bytes` of each.
  int (*copy_rows)(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t bytes,
                   std::size_t rows, void* stream);

  // Graphs: what is put on a stream between the two calls is kept and not run, and then run as often as it is launched.
  // Calls that wait for the stream fail meanwhile.
  int (*begin_capture)(void* stream);
  int (*end_capture)(void* stream, void** graph);
  int (*launch_graph)(void* graph, void* stream);
  void (*destroy_graph)(void* graph);

  // cuda/launch.cuh says what they do.
  int (*scan_one)(const Wave* wave, const Item* item, const Candidates* out, Share* shares, int sample, unsigned blocks,
                  void* stream);
  // How many items scan_many takes at once, 0: it does not scan such rows; `blocks` is at most the stride of shares.
  int (*most_items)(Codes kind, std::uint32_t dim, std::uint32_t* items);
  int (*scan_many)(const Wave* wave, const ItemBatch* batch, unsigned blocks, void* stream);
  int (*prune)(const Candidates* items, unsigned count, std::uint8_t* overflowed, void* stream);
};

}  // namespace fllm::cuda
