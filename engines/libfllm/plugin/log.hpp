// Where the plugin says why it refuses something: TensorRT's logger, or standard error before TensorRT has given one.
#pragma once

#include <NvInferRuntime.h>

#include <string>

namespace fllm::plugin {

void set_logger_finder(nvinfer1::ILoggerFinder* finder);

void log_error(const std::string& text);

}  // namespace fllm::plugin
