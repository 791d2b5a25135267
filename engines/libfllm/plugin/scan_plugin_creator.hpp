// What makes the layer FllmScan from its field `k`, for a network and for a plan that is read.
#pragma once

#include <NvInferRuntime.h>

#include "plugin/scan_plugin.hpp"

namespace fllm::plugin {

class ScanPluginCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  ScanPluginCreator();

  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &fields_; }
  const char* getPluginName() const noexcept override { return kPluginName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }

 private:
  nvinfer1::PluginField field_;
  nvinfer1::PluginFieldCollection fields_;
};

}  // namespace fllm::plugin
