// The whole test framework: CHECK counts what does not hold and says where; a test's main returns check::result().
#pragma once

#include <cstdio>

namespace check {

inline int failures = 0;

inline int result() {
  if (failures != 0) std::fprintf(stderr, "%d checks failed\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK(condition)                                                                  \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      ++check::failures;                                                                  \
    }                                                                                     \
  } while (false)
