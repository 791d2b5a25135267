#include "device.hpp"

#include <cstdio>

#include "status.hpp"

namespace fllm::cuda {

namespace {

std::string gigabytes(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GB", static_cast<double>(bytes) / 1e9);
  return text;
}

Owned made(const Device& device, int (*create)(void**), void (*destroy)(void*), const char* doing) {
  void* object = nullptr;
  device.check(create(&object), doing);
  return {object, destroy};
}

}  // namespace

Device::Device(const Driver& driver, int number) : driver_(driver), number_(number) {
  use();
  check(driver_.describe(&facts_), "asking for its properties");
}

std::string Device::name() const {
  const std::string number = "GPU " + std::to_string(number_);
  return facts_.name[0] == '\0' ? number : number + " (" + facts_.name + ")";
}

void Device::use() const { check(driver_.use_device(number_), "selecting it"); }

void Device::check(int status, const char* doing) const {
  if (status == 0) return;
  const std::string found = name() + " failed while " + doing + ": " + driver_.text();
  if (status == static_cast<int>(Status::memory)) {
    throw Error(Status::memory, sentence(found, "", "Free GPU memory, or request fewer users or fewer items per call"));
  }
  throw Error(Status::hardware, sentence(found, "",
                                         "Open the table again, in a new process if that fails; "
                                         "the engine 'native' needs no GPU"));
}

void Device::check_memory(int status, std::size_t bytes, const char* where) const {
  if (status != static_cast<int>(Status::memory)) return check(status, "allocating memory");
  throw Error(
      Status::memory,
      sentence(name() + " needs " + gigabytes(bytes) + " more " + where + " than is available: " + driver_.text(), "",
               "Free memory, use more GPUs, or request fewer users or fewer items per call"));
}

Memory Memory::of_gpu(const Device& device, std::size_t bytes) {
  void* pointer = nullptr;
  device.check_memory(device.driver().allocate(bytes, &pointer), bytes, "GPU memory");
  return {{pointer, device.driver().release}, bytes};
}

Memory Memory::pinned(const Device& device, std::size_t bytes) {
  void* pointer = nullptr;
  device.check_memory(device.driver().allocate_pinned(bytes, &pointer), bytes, "pinned host memory");
  return {{pointer, device.driver().release_pinned}, bytes};
}

Event::Event(const Device& device)
    : device_(&device),
      event_(made(device, device.driver().create_event, device.driver().destroy_event, "making an event")) {}

void Event::finish() const { device_->check(device_->driver().finish_event(event_.get()), "waiting for an event"); }

Stream::Stream(const Device& device)
    : device_(&device),
      stream_(made(device, device.driver().create_stream, device.driver().destroy_stream, "making a stream")) {}

void Stream::copy(void* to, const void* from, std::size_t bytes) const {
  device_->check(device_->driver().copy(to, from, bytes, stream_.get()), "copying");
}

void Stream::record(const Event& event) const {
  device_->check(device_->driver().record(event.get(), stream_.get()), "recording an event");
}

void Stream::wait(const Event& event) const {
  device_->check(device_->driver().wait(stream_.get(), event.get()), "waiting for an event");
}

Graph Stream::end_capture() const {
  void* graph = nullptr;
  device_->check(device_->driver().end_capture(stream_.get(), &graph), "ending the capture of a graph");
  return Graph(Owned(graph, device_->driver().destroy_graph));
}

void Stream::launch(const Graph& graph) const {
  device_->check(device_->driver().launch_graph(graph.graph_.get(), stream_.get()), "launching a graph");
}

void Stream::finish() const { device_->check(device_->driver().finish(stream_.get()), "scanning"); }

}  // namespace fllm::cuda
