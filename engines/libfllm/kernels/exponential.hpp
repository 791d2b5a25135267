// The numbers behind exp(t) and the softmax denominator, the same on every level. Constants only: they have internal
// linkage, so files of any instruction set may share them.
//
//     t = n ln 2 + r,  |r| <= ln 2 / 2,  exp(t) = 2^n (1 + r + ...)
//
// The series is the polynomial of degree 6 with the smallest largest relative error (3e-9; about 6e-8 with rounding).
#pragma once

namespace fllm::kernels {

// A score more than this above the reference raises it. Small, because the rounding of score - reference, which exp
// turns into a relative error, grows with the difference: 2^-23 for a difference of up to 4.
constexpr float kRaise = 4.0f;
// Smaller exponents, and NaN, count as this one: exp is 1.6e-38, and 2^n is still a normal number.
constexpr float kLowest = -87.0f;

constexpr float kRound = 0x1.8p23f;  // adding it rounds to an integer, which is left in the low bits
constexpr float kLog2E = 0x1.715476p0f;
constexpr float kLn2High = 0x1.63p-1f;  // few bits, so that its product with n is exact
constexpr float kLn2Low = -0x1.bd0106p-13f;
constexpr float kSeries[] = {0x1.6a23dp-10f, 0x1.123a2p-7f, 0x1.5558f2p-5f, 0x1.555492p-3f, 0x1.fffffcp-2f, 1.0f, 1.0f};
constexpr int kTerms = 7;  // highest power first

}  // namespace fllm::kernels
