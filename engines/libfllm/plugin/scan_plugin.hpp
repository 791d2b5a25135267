// The scan of a tile as TensorRT's layer FllmScan.
//
// Inputs: codes int8 or fp8 [T, d], scales float32 [T], valid_rows int64, item_vector float32 [B, d], and bias float32
// [T] where rows have one. Outputs: scores float32 [B, k], rows int64 [B, k], m float32 [B], l float32 [B], as those of
// the head graphs.
#pragma once

#include <NvInferRuntime.h>

namespace fllm::plugin {

inline constexpr const char* kPluginName = "FllmScan";
inline constexpr const char* kPluginVersion = "1";
inline constexpr const char* kPluginNamespace = "fllm";
inline constexpr const char* kFieldK = "k";  // int32: users to return

class ScanPlugin final : public nvinfer1::IPluginV3,
                         public nvinfer1::IPluginV3OneCore,
                         public nvinfer1::IPluginV3OneBuild,
                         public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit ScanPlugin(std::int32_t k) : k_(k) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  const char* getPluginName() const noexcept override { return kPluginName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }

  std::int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, std::int32_t inputs,
                               const nvinfer1::DynamicPluginTensorDesc* out, std::int32_t outputs) noexcept override;
  std::int32_t getOutputDataTypes(nvinfer1::DataType* types, std::int32_t outputs,
                                  const nvinfer1::DataType* input_types, std::int32_t inputs) const noexcept override;
  std::int32_t getOutputShapes(const nvinfer1::DimsExprs* in, std::int32_t inputs,
                               const nvinfer1::DimsExprs* shape_inputs, std::int32_t shapes, nvinfer1::DimsExprs* out,
                               std::int32_t outputs, nvinfer1::IExprBuilder& expressions) noexcept override;
  bool supportsFormatCombination(std::int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 std::int32_t inputs, std::int32_t outputs) noexcept override;
  std::int32_t getNbOutputs() const noexcept override { return 4; }
  std::size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* in, std::int32_t inputs,
                               const nvinfer1::DynamicPluginTensorDesc* out,
                               std::int32_t outputs) const noexcept override;

  std::int32_t onShapeChange(const nvinfer1::PluginTensorDesc* in, std::int32_t inputs,
                             const nvinfer1::PluginTensorDesc* out, std::int32_t outputs) noexcept override;
  std::int32_t enqueue(const nvinfer1::PluginTensorDesc* in, const nvinfer1::PluginTensorDesc* out,
                       const void* const* inputs, void* const* outputs, void* workspace,
                       cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

 private:
  std::int32_t k_;
  std::int32_t inputs_ = 0;  // 5 with a bias, else 4; told by onShapeChange, which comes before enqueue
  nvinfer1::PluginField field_;
  nvinfer1::PluginFieldCollection fields_;
};

}  // namespace fllm::plugin
