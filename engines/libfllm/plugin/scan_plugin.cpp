#include "plugin/scan_plugin.hpp"

#include <limits>
#include <new>
#include <string>

#include "plugin/log.hpp"
#include "plugin/tile_scan.hpp"

namespace fllm::plugin {

using namespace nvinfer1;

namespace {

enum Input : std::int32_t { kCodes, kScales, kValidRows, kItemVector, kBias };
enum Output : std::int32_t { kScores, kRows, kM, kL, kOutputs };
constexpr std::int32_t kWithoutBias = 4, kWithBias = 5;
constexpr std::int32_t kDone = 0, kRefused = 1;

DataType output_type(std::int32_t output) { return output == kRows ? DataType::kINT64 : DataType::kFLOAT; }

bool takes(std::int32_t input, DataType type) {
  if (input == kCodes) return type == DataType::kINT8 || type == DataType::kFP8;
  return type == (input == kValidRows ? DataType::kINT64 : DataType::kFLOAT);
}

std::string text(const Dims& dims) {
  std::string all = "[";
  for (std::int32_t i = 0; i < dims.nbDims; ++i) all += (i > 0 ? ", " : "") + std::to_string(dims.d[i]);
  return all + "]";
}

bool is(const Dims& dims, std::int32_t rank, std::int64_t first, std::int64_t second) {
  return dims.nbDims == rank && (rank < 1 || dims.d[0] == first) && (rank < 2 || dims.d[1] == second);
}

// Says so and returns false unless the inputs' shapes go together; `dims(i)` is that of input i.
template <typename Shape>
bool go_together(std::int32_t inputs, Shape dims) {
  const auto refuse = [](const std::string& what, const std::string& expected) {
    log_error(what + "; expected " + expected + ". Compare the node's inputs with those of the head graph.");
    return false;
  };
  if (inputs != kWithoutBias && inputs != kWithBias) {
    return refuse("there are " + std::to_string(inputs) + " inputs",
                  "codes, scales, valid_rows, item_vector and, where rows have one, bias");
  }
  const Dims codes = dims(kCodes), vectors = dims(kItemVector);
  if (codes.nbDims != 2) return refuse("codes are " + text(codes), "[rows, dim]");
  const std::int64_t rows = codes.d[0], dim = codes.d[1];
  if (dim < 1 || dim > cuda::kMaxDim) {
    return refuse("rows have " + std::to_string(dim) + " numbers", "1 to " + std::to_string(cuda::kMaxDim));
  }
  if (vectors.nbDims != 2 || vectors.d[1] != dim || vectors.d[0] > std::numeric_limits<std::int32_t>::max()) {
    return refuse("item_vector is " + text(vectors), "[items, " + std::to_string(dim) + "] as codes have it");
  }
  if (!is(dims(kScales), 1, rows, 0)) {
    return refuse("scales are " + text(dims(kScales)), "one for each of " + std::to_string(rows) + " rows");
  }
  if (!is(dims(kValidRows), 0, 0, 0)) return refuse("valid_rows is " + text(dims(kValidRows)), "a single number");
  if (inputs == kWithBias && !is(dims(kBias), 1, rows, 0)) {
    return refuse("bias is " + text(dims(kBias)), "one for each of " + std::to_string(rows) + " rows");
  }
  return true;
}

TileShape shape_of(const Dims& codes, const Dims& vectors, std::int32_t k) {
  return {static_cast<std::uint64_t>(codes.d[0]), static_cast<std::uint32_t>(codes.d[1]),
          static_cast<std::uint32_t>(vectors.d[0]), static_cast<std::uint32_t>(k)};
}

}  // namespace

IPluginCapability* ScanPlugin::getCapabilityInterface(PluginCapabilityType type) noexcept {
  switch (type) {
    case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
    case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
    case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

IPluginV3* ScanPlugin::clone() noexcept {
  auto* const copy = new (std::nothrow) ScanPlugin(k_);
  if (copy != nullptr) copy->inputs_ = inputs_;
  return copy;
}

std::int32_t ScanPlugin::configurePlugin(const DynamicPluginTensorDesc* in, std::int32_t inputs,
                                         const DynamicPluginTensorDesc*, std::int32_t) noexcept {
  return go_together(inputs, [in](std::int32_t input) { return in[input].max; }) ? kDone : kRefused;
}

std::int32_t ScanPlugin::getOutputDataTypes(DataType* types, std::int32_t outputs, const DataType*,
                                            std::int32_t) const noexcept {
  for (std::int32_t output = 0; output < outputs; ++output) types[output] = output_type(output);
  return kDone;
}

std::int32_t ScanPlugin::getOutputShapes(const DimsExprs* in, std::int32_t inputs, const DimsExprs*, std::int32_t,
                                         DimsExprs* out, std::int32_t outputs, IExprBuilder& expressions) noexcept {
  if (inputs <= kItemVector || in[kItemVector].nbDims != 2 || outputs != kOutputs) {
    log_error("item_vector is not there as [items, dim]; expected it as input " + std::to_string(kItemVector) +
              ". Compare the node's inputs with those of the head graph.");
    return kRefused;
  }
  for (std::int32_t output = 0; output < outputs; ++output) {
    out[output].nbDims = output == kScores || output == kRows ? 2 : 1;
    out[output].d[0] = in[kItemVector].d[0];
    if (out[output].nbDims == 2) out[output].d[1] = expressions.constant(k_);
  }
  return kDone;
}

bool ScanPlugin::supportsFormatCombination(std::int32_t position, const DynamicPluginTensorDesc* tensors,
                                           std::int32_t inputs, std::int32_t) noexcept {
  const PluginTensorDesc& tensor = tensors[position].desc;
  if (tensor.format != TensorFormat::kLINEAR) return false;
  return position < inputs ? takes(position, tensor.type) : tensor.type == output_type(position - inputs);
}

std::size_t ScanPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* in, std::int32_t,
                                         const DynamicPluginTensorDesc*, std::int32_t) const noexcept {
  return workspace_bytes(shape_of(in[kCodes].max, in[kItemVector].max, k_));
}

std::int32_t ScanPlugin::onShapeChange(const PluginTensorDesc* in, std::int32_t inputs, const PluginTensorDesc*,
                                       std::int32_t) noexcept {
  if (!go_together(inputs, [in](std::int32_t input) { return in[input].dims; })) return kRefused;
  inputs_ = inputs;
  return kDone;
}

std::int32_t ScanPlugin::enqueue(const PluginTensorDesc* in, const PluginTensorDesc*, const void* const* inputs,
                                 void* const* outputs, void* workspace, cudaStream_t stream) noexcept {
  if (inputs_ == 0) {
    log_error(
        "the scan was put on a stream before its shapes were known; expected onShapeChange first. "
        "Tell us which version of TensorRT this is.");
    return kRefused;
  }
  TileTensors tensors{};
  tensors.codes = static_cast<const std::int8_t*>(inputs[kCodes]);
  tensors.kind = in[kCodes].type == DataType::kINT8 ? cuda::Codes::int8 : cuda::Codes::fp8;
  tensors.scales = static_cast<const float*>(inputs[kScales]);
  tensors.valid_rows = static_cast<const std::int64_t*>(inputs[kValidRows]);
  tensors.item_vectors = static_cast<const float*>(inputs[kItemVector]);
  tensors.bias = inputs_ == kWithBias ? static_cast<const float*>(inputs[kBias]) : nullptr;
  tensors.scores = static_cast<float*>(outputs[kScores]);
  tensors.row_numbers = static_cast<std::int64_t*>(outputs[kRows]);
  tensors.m = static_cast<float*>(outputs[kM]);
  tensors.l = static_cast<float*>(outputs[kL]);
  const int failed = scan_tile(shape_of(in[kCodes].dims, in[kItemVector].dims, k_), tensors, workspace, stream);
  if (failed == 0) return kDone;
  log_error(std::string("the scan could not be put on the stream: ") + text_of(failed) +
            "; expected a GPU of compute capability 8.0 or more. Look for an earlier failure of the GPU.");
  return kRefused;
}

IPluginV3* ScanPlugin::attachToContext(IPluginResourceContext*) noexcept { return clone(); }

const PluginFieldCollection* ScanPlugin::getFieldsToSerialize() noexcept {
  field_.name = kFieldK;
  field_.data = &k_;
  field_.type = PluginFieldType::kINT32;
  field_.length = 1;
  fields_.nbFields = 1;
  fields_.fields = &field_;
  return &fields_;
}

}  // namespace fllm::plugin
