// As much of TensorRT's interface for plugins as is used here, in declarations of our own under the same names, so that
// the plugin compiles and runs in tests where there is no TensorRT. Only what the compiler must see is here; order and
// completeness of the virtual functions are not TensorRT's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/emulation/runtime.hpp"

using cudaStream_t = fllm::cuda::Stream;

namespace nvinfer1 {

using AsciiChar = char;

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kFP8 = 6, kINT64 = 8 };
enum class TensorFormat : std::int32_t { kLINEAR = 0, kCHW32 = 5 };

struct Dims {
  static constexpr std::int32_t MAX_DIMS = 8;
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};

struct PluginTensorDesc {
  Dims dims;
  DataType type;
  TensorFormat format;
  float scale;
};

struct DynamicPluginTensorDesc {
  PluginTensorDesc desc;
  Dims min, max, opt;
};

class IDimensionExpr {
 public:
  explicit IDimensionExpr(std::int64_t value) : value_(value) {}
  std::int64_t getConstantValue() const noexcept { return value_; }

 private:
  std::int64_t value_;
};

class IExprBuilder {
 public:
  virtual ~IExprBuilder() = default;
  virtual const IDimensionExpr* constant(std::int64_t value) noexcept = 0;
};

struct DimsExprs {
  std::int32_t nbDims;
  const IDimensionExpr* d[Dims::MAX_DIMS];
};

enum class PluginFieldType : std::int32_t { kFLOAT32 = 1, kINT32 = 5, kINT64 = 10 };

struct PluginField {
  const AsciiChar* name = nullptr;
  const void* data = nullptr;
  PluginFieldType type = PluginFieldType::kINT32;
  std::int32_t length = 0;
};

struct PluginFieldCollection {
  std::int32_t nbFields = 0;
  const PluginField* fields = nullptr;
};

enum class TensorRTPhase : std::int32_t { kBUILD = 0, kRUNTIME = 1 };
enum class PluginCapabilityType : std::int32_t { kCORE = 0, kBUILD = 1, kRUNTIME = 2 };

class IVersionedInterface {
 public:
  virtual ~IVersionedInterface() noexcept = default;
};

class IPluginCapability : public IVersionedInterface {};
class IPluginResourceContext;

class IPluginV3 : public IVersionedInterface {
 public:
  virtual IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept = 0;
  virtual IPluginV3* clone() noexcept = 0;
};

class IPluginV3OneCore : public IPluginCapability {
 public:
  virtual const AsciiChar* getPluginName() const noexcept = 0;
  virtual const AsciiChar* getPluginVersion() const noexcept = 0;
  virtual const AsciiChar* getPluginNamespace() const noexcept = 0;
};

class IPluginV3OneBuild : public IPluginCapability {
 public:
  virtual std::int32_t configurePlugin(const DynamicPluginTensorDesc* in, std::int32_t nbInputs,
                                       const DynamicPluginTensorDesc* out, std::int32_t nbOutputs) noexcept = 0;
  virtual std::int32_t getOutputDataTypes(DataType* outputTypes, std::int32_t nbOutputs, const DataType* inputTypes,
                                          std::int32_t nbInputs) const noexcept = 0;
  virtual std::int32_t getOutputShapes(const DimsExprs* inputs, std::int32_t nbInputs, const DimsExprs* shapeInputs,
                                       std::int32_t nbShapeInputs, DimsExprs* outputs, std::int32_t nbOutputs,
                                       IExprBuilder& exprBuilder) noexcept = 0;
  virtual bool supportsFormatCombination(std::int32_t pos, const DynamicPluginTensorDesc* inOut, std::int32_t nbInputs,
                                         std::int32_t nbOutputs) noexcept = 0;
  virtual std::int32_t getNbOutputs() const noexcept = 0;
  virtual std::size_t getWorkspaceSize(const DynamicPluginTensorDesc*, std::int32_t, const DynamicPluginTensorDesc*,
                                       std::int32_t) const noexcept {
    return 0;
  }
};

class IPluginV3OneRuntime : public IPluginCapability {
 public:
  virtual std::int32_t onShapeChange(const PluginTensorDesc* in, std::int32_t nbInputs, const PluginTensorDesc* out,
                                     std::int32_t nbOutputs) noexcept = 0;
  virtual std::int32_t enqueue(const PluginTensorDesc* inputDesc, const PluginTensorDesc* outputDesc,
                               const void* const* inputs, void* const* outputs, void* workspace,
                               cudaStream_t stream) noexcept = 0;
  virtual IPluginV3* attachToContext(IPluginResourceContext* context) noexcept = 0;
  virtual const PluginFieldCollection* getFieldsToSerialize() noexcept = 0;
};

class IPluginCreatorInterface : public IVersionedInterface {};

class IPluginCreatorV3One : public IPluginCreatorInterface {
 public:
  virtual IPluginV3* createPlugin(const AsciiChar* name, const PluginFieldCollection* fc,
                                  TensorRTPhase phase) noexcept = 0;
  virtual const PluginFieldCollection* getFieldNames() noexcept = 0;
  virtual const AsciiChar* getPluginName() const noexcept = 0;
  virtual const AsciiChar* getPluginVersion() const noexcept = 0;
  virtual const AsciiChar* getPluginNamespace() const noexcept = 0;
};

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, const AsciiChar* msg) noexcept = 0;

 protected:
  virtual ~ILogger() = default;
};

class ILoggerFinder {
 public:
  virtual ILogger* findLogger() = 0;

 protected:
  virtual ~ILoggerFinder() = default;
};

}  // namespace nvinfer1
