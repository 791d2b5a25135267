// What TensorRT asks a library of plugins for when it loads it.
#include <NvInferRuntime.h>

#include "plugin/log.hpp"
#include "plugin/scan_plugin_creator.hpp"

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  fllm::plugin::set_logger_finder(finder);
}

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(
    std::int32_t& count) {
  static fllm::plugin::ScanPluginCreator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}
