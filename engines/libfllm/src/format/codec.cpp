// Names and sizes of codecs.
#include "format/table.hpp"

namespace fllm {

const char* codec_name(Codec codec) {
  switch (codec) {
    case Codec::fp32: return "fp32";
    case Codec::fp16: return "fp16";
    case Codec::int8: return "int8";
    case Codec::fp8: return "fp8";
    case Codec::int4: return "int4";
  }
  return "";
}

std::size_t code_bytes(Codec codec, std::size_t dim) {
  switch (codec) {
    case Codec::fp32: return 4 * dim;
    case Codec::fp16: return 2 * dim;
    case Codec::int8:
    case Codec::fp8: return dim;
    case Codec::int4: return (dim + 1) / 2;
  }
  return 0;
}

std::size_t group_bytes(Codec codec, std::size_t dim) { return codec == Codec::int4 ? (dim + 31) / 32 : 0; }

}  // namespace fllm
