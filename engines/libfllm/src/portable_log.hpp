// The natural logarithm, bit-identical on every machine. fllm_export.portable_log computes the same.
#pragma once

namespace fllm {

// Of a positive normal number, within 2 ulp: from IEEE additions, multiplications and divisions in a fixed order, so
// that no math library can make two machines disagree.
double portable_log(double x);

}  // namespace fllm
