// Which level is found, by name, by FLLM_ISA and by itself.
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "kernels/kernels.hpp"
#include "machine/cpu.hpp"
#include "status.hpp"

namespace {

using fllm::kernels::find;
using fllm::kernels::Kernels;

bool complete(const Kernels& kernels) {
  const void* members[sizeof(Kernels) / sizeof(void*)];
  std::memcpy(members, &kernels, sizeof members);
  for (const void* member : members) {
    if (member == nullptr) return false;
  }
  return true;
}

// The levels that can be had here, weakest first.
std::vector<std::string> levels() {
  std::vector<std::string> names;
  for (const std::string& name : fllm::cpu_levels()) {
    if (find(name.c_str()) != nullptr) names.push_back(name);
  }
  return names;
}

void finds_by_name() {
  CHECK(levels().front() == "scalar");
  for (const std::string& name : levels()) {
    CHECK(find(name.c_str())->isa == name);
    CHECK(complete(*find(name.c_str())));
    CHECK(find(name.c_str()) == find(name.c_str()));
  }
  for (const char* unknown : {"nonsense", "AVX2", "scalar ", "avx"}) CHECK(find(unknown) == nullptr);
#if defined(__x86_64__)
  CHECK(find("neon") == nullptr);
#else
  CHECK(find("avx2") == nullptr);
#endif
}

void takes_the_best() {
  unsetenv("FLLM_ISA");
  CHECK(find("")->isa == levels().back());
  setenv("FLLM_ISA", "", 1);
  CHECK(find("")->isa == levels().back());
}

void obeys_the_environment() {
  for (const std::string& name : levels()) {
    setenv("FLLM_ISA", name.c_str(), 1);
    CHECK(find("") == find(name.c_str()));
    CHECK(std::strcmp(find("scalar")->isa, "scalar") == 0);  // a name is stronger than the environment
  }
  unsetenv("FLLM_ISA");
}

void refuses_what_is_lacking(const char* name) {
  setenv("FLLM_ISA", name, 1);
  std::string message;
  try {
    find("");
  } catch (const fllm::Error& error) {
    CHECK(error.status() == fllm::Status::hardware);
    message = error.what();
  }
  unsetenv("FLLM_ISA");
  CHECK(message.find("FLLM_ISA") != std::string::npos);
  CHECK(message.find(std::string("'") + name + "'") != std::string::npos);
  for (const std::string& level : levels()) CHECK(message.find(level) != std::string::npos);
}

void serves_many_threads() {
  std::vector<const Kernels*> found(8);
  std::vector<std::thread> threads;
  for (auto& each : found) threads.emplace_back([&each] { each = find(""); });
  for (auto& thread : threads) thread.join();
  for (const Kernels* each : found) CHECK(each == found.front() && each != nullptr);
}

}  // namespace

int main() {
  serves_many_threads();  // first, so that they race for the tables
  finds_by_name();
  takes_the_best();
  obeys_the_environment();
  refuses_what_is_lacking("nonsense");
#if defined(__x86_64__)
  refuses_what_is_lacking("neon");
#else
  refuses_what_is_lacking("avx512");
#endif
  return check::result();
}
