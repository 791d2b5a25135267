# The header nlohmann/json.hpp: from the system, or from the package `nlohmann-json` of the Python that builds.
include(FindPackageHandleStandardArgs)
find_package(Python 3.11 QUIET COMPONENTS Interpreter)
if(Python_EXECUTABLE)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
      "import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec('nlohmann_json').origin).parent / 'include')"
    OUTPUT_VARIABLE packaged OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_path(NLOHMANN_JSON_INCLUDE_DIR nlohmann/json.hpp HINTS ${packaged})
find_package_handle_standard_args(NlohmannJson
  REQUIRED_VARS NLOHMANN_JSON_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "Install it: pip install nlohmann-json, or your system's package of it")
