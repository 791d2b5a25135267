# The header onnxruntime_c_api.h, which ONNX Runtime's Python package leaves out. Looked for in
#  - ONNXRUNTIME_INCLUDE_DIR, and ONNXRUNTIME_ROOT of an ONNX Runtime release;
#  - the system;
#  - the folder `node_modules` of the source tree or of the current directory, where
#    `npm install --ignore-scripts com.github.asus4.onnxruntime` puts a package that has the headers.
include(FindPackageHandleStandardArgs)
set(packaged "")
foreach(modules IN ITEMS ${CMAKE_SOURCE_DIR}/node_modules ${CMAKE_SOURCE_DIR}/../../node_modules $ENV{PWD}/node_modules)
  file(GLOB found
    "${modules}/com.github.asus4.onnxruntime/Plugins/*/onnxruntime.xcframework/ios-arm64/onnxruntime.framework/Headers")
  list(APPEND packaged ${found})
endforeach()
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h
  HINTS ${ONNXRUNTIME_ROOT} ENV ONNXRUNTIME_ROOT ${packaged}
  PATH_SUFFIXES include include/onnxruntime onnxruntime onnxruntime/core/session)
find_package_handle_standard_args(OnnxRuntimeHeaders
  REQUIRED_VARS ONNXRUNTIME_INCLUDE_DIR
  REASON_FAILURE_MESSAGE
    "Set ONNXRUNTIME_INCLUDE_DIR, or: npm install --ignore-scripts com.github.asus4.onnxruntime")
