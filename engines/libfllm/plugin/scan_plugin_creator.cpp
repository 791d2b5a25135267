#include "plugin/scan_plugin_creator.hpp"

#include <cstring>
#include <exception>
#include <string>

#include "plugin/log.hpp"

namespace fllm::plugin {

using namespace nvinfer1;

ScanPluginCreator::ScanPluginCreator() {
  field_.name = kFieldK;
  field_.type = PluginFieldType::kINT32;
  field_.length = 1;
  fields_.nbFields = 1;
  fields_.fields = &field_;
}

IPluginV3* ScanPluginCreator::createPlugin(const char*, const PluginFieldCollection* fields, TensorRTPhase) noexcept
    try {
  for (std::int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    if (std::strcmp(field.name, kFieldK) != 0) continue;
    if (field.type != PluginFieldType::kINT32 || field.length != 1 || field.data == nullptr) {
      log_error("the field k is of type " + std::to_string(static_cast<std::int32_t>(field.type)) + " with " +
                std::to_string(field.length) + " values; expected one int32. Give k as one whole number.");
      return nullptr;
    }
    std::int32_t k = 0;
    std::memcpy(&k, field.data, sizeof k);
    if (k >= 1) return new ScanPlugin(k);
    log_error("the field k is " + std::to_string(k) + "; expected at least 1. Ask for at least one user.");
    return nullptr;
  }
  log_error("there is no field k; expected the number of users to return. Give the node an attribute k.");
  return nullptr;
} catch (const std::exception&) {
  return nullptr;  // memory: nothing more can be said
}

}  // namespace fllm::plugin
