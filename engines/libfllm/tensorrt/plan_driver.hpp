// What libfllm_tensorrt offers to libfllm, which loads it when the engine `tensorrt` is asked for: plans and what runs
// them. Memory and streams are libfllm_cuda's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fllm::tensorrt {

inline constexpr std::uint32_t kPlanDriverVersion = 1;
inline constexpr const char* kPlanDriverSymbol = "fllm_plan_driver";

struct LibraryFacts {
  char name[16];            // "tensorrt" or "tensorrt_rtx", as fllm_export.engines.tensorrt.library has them
  std::int32_t version[4];  // major, minor, patch, build
};

struct Shape {
  static constexpr std::int32_t kMaxRank = 8;
  std::int32_t rank;
  std::int64_t sizes[kMaxRank];  // -1 where a plan leaves a size free
};

enum class ElementType : std::int32_t { float32, int64, int8, fp8, other };

struct TensorFacts {
  const char* name;  // of the plan, as long as it is loaded
  Shape shape;
  ElementType type;
  bool is_input;
  bool on_host;  // its address is one of the host's memory
};

// Functions return a fllm::Status: ok, memory, bundle, or hardware; text() says more about the calling thread's last
// failure. They act on the device that the calling thread uses. A stream is a cudaStream_t.
struct PlanDriver {
  std::uint32_t version;
  const char* (*text)();
  void (*describe_library)(LibraryFacts* facts);

  // The bytes are read during the call only.
  int (*load)(const void* bytes, std::size_t size, void** plan);
  void (*unload)(void* plan);  // after all its contexts
  std::int32_t (*tensors)(void* plan);
  int (*describe_tensor)(void* plan, std::int32_t number, TensorFacts* facts);
  std::int32_t (*profiles)(void* plan);
  // The least and the greatest shape that a profile allows an input.
  int (*describe_profile)(void* plan, std::int32_t profile, const char* input, Shape* least, Shape* most);

  // A context has no memory of its own for what a plan computes on the way: it is given some, which several contexts
  // may share that never run at the same time.
  int (*create_context)(void* plan, std::int32_t profile, void* stream, void** context);
  void (*destroy_context)(void* context);
  int (*set_shape)(void* context, const char* input, const Shape* shape);
  // What the shapes given need; to be asked for before the memory is given.
  int (*scratch_bytes)(void* context, std::size_t* bytes);
  int (*give_scratch)(void* context, void* memory, std::size_t bytes);
  int (*set_address)(void* context, const char* tensor, void* address);
  // Puts the plan's work on the stream. The first call after shapes were set may do more than that and must not be
  // captured.
  int (*enqueue)(void* context, void* stream);
};

}  // namespace fllm::tensorrt
