// What a fork leaves behind: threads do not follow into the child, and the locks that they held stay locked there.
#pragma once

#include <cstdint>
#include <mutex>

namespace fllm {

// How often the process that loaded the library was forked on the way to this one. An object with threads or locks of
// its own can be used only where this is what it was when the object was made.
std::uint64_t process_number();

// Guards what handles point to. No fork happens while a thread holds it, so a child always finds it free.
std::mutex& handles_mutex();

}  // namespace fllm
