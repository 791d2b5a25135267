// Writing a table without vector instructions.
#include <cstddef>

namespace fllm::kernels {

namespace {

// Products and sums of integers below 2^53 are exact, so that a fused multiply-add gives no other result.
struct Wide {
  struct Vector {
    double lanes[2];
  };
  static constexpr std::size_t kLanes = 2, kRows = 1;
  static Vector zero() { return {{0, 0}}; }
  static Vector all(double value) { return {{value, value}}; }
  static Vector load(const double* p) { return {{p[0], p[1]}}; }
  static void store(double* p, Vector v) {
    p[0] = v.lanes[0];
    p[1] = v.lanes[1];
  }
  static Vector widen(const float* p) { return {{static_cast<double>(p[0]), static_cast<double>(p[1])}}; }
  static void narrow(float* p, Vector v) {
    p[0] = static_cast<float>(v.lanes[0]);
    p[1] = static_cast<float>(v.lanes[1]);
  }
  static Vector add(Vector a, Vector b) { return {{a.lanes[0] + b.lanes[0], a.lanes[1] + b.lanes[1]}}; }
  static Vector multiply(Vector a, Vector b) { return {{a.lanes[0] * b.lanes[0], a.lanes[1] * b.lanes[1]}}; }
  static Vector multiply_add(Vector a, Vector b, Vector c) {
    return {{a.lanes[0] * b.lanes[0] + c.lanes[0], a.lanes[1] * b.lanes[1] + c.lanes[1]}};
  }
};

}  // namespace

}  // namespace fllm::kernels

#include "kernels/kernels.hpp"
#include "kernels/writing_lanes.hpp"

namespace fllm::kernels {

void fill_writing_scalar(Kernels& kernels) { fill_writing(kernels.writing); }

}  // namespace fllm::kernels
