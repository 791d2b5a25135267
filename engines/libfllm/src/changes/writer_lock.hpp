// The lock of a table's one writer, which Python's writers take as well.
#pragma once

#include <string>

namespace fllm::changes {

class WriterLock {
 public:
  // Throws Error (Status::usage) when another writer holds the lock, Refusal when the system refuses.
  explicit WriterLock(const std::string& directory);
  ~WriterLock();
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  int file_;
};

}  // namespace fllm::changes
