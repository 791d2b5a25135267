# Where things go: under fllm_export/ in the wheel, so that a C or C++ program finds the library in a Python
# installation, and under the prefix otherwise. Same layout below: include, lib, lib/cmake/fllm, lib/pkgconfig.
include(CMakePackageConfigHelpers)
if(FLLM_BUILD_PYTHON)
  set(root fllm_export/)
else()
  set(root "")
  # A wheel cannot hold the links that a versioned library name needs.
  set_target_properties(fllm PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
endif()

install(TARGETS fllm EXPORT fllmTargets LIBRARY DESTINATION ${root}lib INCLUDES DESTINATION ${root}include)
install(FILES include/fllm/fllm.h include/fllm/fllm.hpp include/fllm/json.hpp DESTINATION ${root}include/fllm)
if(FLLM_ENCODER)
  install(TARGETS fllm_encoder EXPORT fllmTargets
    LIBRARY DESTINATION ${root}lib INCLUDES DESTINATION ${root}include)
  install(FILES include/fllm/encoder.h DESTINATION ${root}include/fllm)
  configure_file(cmake/fllm_encoder.pc.in ${CMAKE_CURRENT_BINARY_DIR}/fllm_encoder.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fllm_encoder.pc DESTINATION ${root}lib/pkgconfig)
endif()
if(FLLM_CUDA)
  install(TARGETS fllm_cuda LIBRARY DESTINATION ${root}lib)
endif()
if(FLLM_TENSORRT_ROOT)
  install(TARGETS fllm_tensorrt LIBRARY DESTINATION ${root}lib)
endif()
install(EXPORT fllmTargets NAMESPACE fllm:: DESTINATION ${root}lib/cmake/fllm)
configure_package_config_file(cmake/fllmConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/fllmConfig.cmake
  INSTALL_DESTINATION ${root}lib/cmake/fllm)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/fllmConfigVersion.cmake COMPATIBILITY SameMinorVersion)
configure_file(cmake/fllm.pc.in ${CMAKE_CURRENT_BINARY_DIR}/fllm.pc @ONLY)
# The module finds the JSON library that fllm/json.hpp needs, for programs that include it.
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fllmConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/fllmConfigVersion.cmake
  cmake/FindNlohmannJson.cmake DESTINATION ${root}lib/cmake/fllm)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fllm.pc DESTINATION ${root}lib/pkgconfig)
