# A test of the objects themselves, x86-64 alone: no instruction of a kernel's set may have leaked out of its files.
# Sanitizers put static initialisers into every object, so a sanitized build cannot be judged.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND NOT FLLM_SANITIZE)
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)
  add_test(NAME baseline_objects_test
    COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/tests/baseline_objects_test.py
      $<TARGET_OBJECTS:fllm_objects>
    COMMAND_EXPAND_LISTS)
endif()
