// A GPU, its memory and its streams, as the driver offers them. What fails is told by an Error that names the GPU.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "cuda/driver.hpp"

namespace fllm::cuda {

class Device {
 public:
  // `number` counts the GPUs that the process sees. Throws Error (Status::hardware) when it cannot be used.
  Device(const Driver& driver, int number);

  const Driver& driver() const { return driver_; }
  const DeviceFacts& facts() const { return facts_; }
  std::string name() const;

  // Makes this the calling thread's device; all that follows on the thread acts on it.
  void use() const;

  // Throws unless a call of the driver succeeded; `doing` says what it was for.
  void check(int status, const char* doing) const;

  // As check(), where memory of the GPU or of the host was asked for.
  void check_memory(int status, std::size_t bytes, const char* where) const;

 private:
  const Driver& driver_;
  int number_;
  DeviceFacts facts_{};
};

// What the driver made, and gives back.
using Owned = std::unique_ptr<void, void (*)(void*)>;

// Uninitialised memory; none by default.
class Memory {
 public:
  Memory() = default;
  static Memory of_gpu(const Device& device, std::size_t bytes);
  // Of the host, that copies to and from the GPU need not be staged for.
  static Memory pinned(const Device& device, std::size_t bytes);

  std::uint8_t* data() const { return static_cast<std::uint8_t*>(data_.get()); }
  std::size_t size() const { return size_; }

 private:
  Memory(Owned data, std::size_t size) : data_(std::move(data)), size_(size) {}

  Owned data_{nullptr, nullptr};
  std::size_t size_ = 0;
};

class Event {
 public:
  explicit Event(const Device& device);
  void* get() const { return event_.get(); }
  void finish() const;

 private:
  const Device* device_;
  Owned event_;
};

// What a stream captured, to be launched again and again; none by default.
class Graph {
 public:
  Graph() = default;
  explicit operator bool() const { return graph_ != nullptr; }

 private:
  friend class Stream;
  explicit Graph(Owned graph) : graph_(std::move(graph)) {}

  Owned graph_{nullptr, nullptr};
};

class Stream {
 public:
  explicit Stream(const Device& device);
  void* get() const { return stream_.get(); }

  void copy(void* to, const void* from, std::size_t bytes) const;
  void record(const Event& event) const;
  void wait(const Event& event) const;
  void finish() const;

  // Keeps what `work` puts on the stream instead of running it.
  template <typename Work>
  Graph capture(Work&& work) const {
    device_->check(device_->driver().begin_capture(stream_.get()), "capturing a graph");
    try {
      work();
    } catch (...) {
      void* graph = nullptr;  // the capture must end, whatever became of it
      if (device_->driver().end_capture(stream_.get(), &graph) == 0) device_->driver().destroy_graph(graph);
      throw;
    }
    return end_capture();
  }
  void launch(const Graph& graph) const;

 private:
  Graph end_capture() const;

  const Device* device_;
  Owned stream_;
};

}  // namespace fllm::cuda
