#include "plugin/log.hpp"

#include <atomic>
#include <cstdio>

namespace fllm::plugin {

namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder = nullptr;

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) { logger_finder = finder; }

void log_error(const std::string& text) {
  const std::string message = "FllmScan: " + text;
  nvinfer1::ILoggerFinder* const finder = logger_finder;
  nvinfer1::ILogger* const logger = finder == nullptr ? nullptr : finder->findLogger();
  if (logger == nullptr) {
    std::fprintf(stderr, "%s\n", message.c_str());
  } else {
    logger->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
  }
}

}  // namespace fllm::plugin
