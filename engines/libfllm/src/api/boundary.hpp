// What every function of the C interfaces does: exceptions become statuses, and option structs may be older.
#pragma once

#include <cstdio>
#include <cstring>
#include <new>
#include <string>

#include "fllm/fllm.h"
#include "status.hpp"

namespace fllm {

inline fllm_status fail(Status status, const char* message, fllm_error* error) {
  if (error != nullptr) std::snprintf(error->message, sizeof error->message, "%s", message);
  return static_cast<fllm_status>(status);
}

// Runs what a function of the interface does; no exception leaves it.
template <typename Work>
fllm_status guarded(fllm_error* error, Work&& work) {
  try {
    work();
    if (error != nullptr) error->message[0] = '\0';
    return FLLM_OK;
  } catch (const Error& failure) {
    return fail(failure.status(), failure.what(), error);
  } catch (const std::bad_alloc&) {
    return fail(Status::memory, "there is not enough memory. Request fewer users or fewer items per call.", error);
  } catch (const std::exception& failure) {
    return fail(Status::internal, failure.what(), error);
  } catch (...) {
    return fail(Status::internal, "an unknown failure.", error);
  }
}

inline void require(bool holds, const char* found, const char* expected) {
  if (!holds) throw Error(Status::usage, sentence(found, expected));
}

// A copy of the caller's option struct, whose tail keeps its defaults where the caller's is of an older, shorter form.
template <typename Options>
Options read_options(const Options* given, Options defaults, const char* what) {
  if (given == nullptr) return defaults;
  if (given->size < sizeof given->size || given->size > sizeof defaults) {
    throw Error(
        Status::usage,
        sentence(std::string("the size of ") + what + " is " + std::to_string(given->size),
                 "at most " + std::to_string(sizeof defaults),
                 "Set it with the FLLM_..._INIT macro, and use a library that is at least as new as the header"));
  }
  std::memcpy(&defaults, given, given->size);
  return defaults;
}

}  // namespace fllm
