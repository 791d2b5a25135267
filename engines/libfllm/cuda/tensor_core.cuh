// Tensor cores, asynchronous copies and conversions, by the PTX instructions that C++ has no words for.
#pragma once

namespace fllm::cuda {

__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char fllm_dynamic_shared[];
  return fllm_dynamic_shared;
}

// sums[16, 8] += a[16, 32] b[32, 8], all lanes together. PTX's fragments of m16n8k32: lane 4 g + t has of `a` the bytes
// 4 t to 4 t + 3 of row g and row g + 8, then the same 16 bytes on; of `b` the same of column g; of the sums columns 2
// t and 2 t + 1 of row g, then of row g + 8.
__device__ __forceinline__ void multiply_tile(int (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// sums[16, 8] += a[16, 16] b[16, 8] of halves, all lanes together. PTX's fragments of m16n8k16: lane 4 g + t has of `a`
// columns 2 t and 2 t + 1 of row g, the same of row g + 8, then both 8 columns on; of `b` rows 2 t and 2 t + 1 of
// column g, then 8 rows on; sums as above. PTX promises at least the precision of single floats, and no order of the
// additions.
__device__ __forceinline__ void multiply_tile(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two halves less two others.
__device__ __forceinline__ unsigned subtract_halves(unsigned a, unsigned b) {
  unsigned difference;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
  return difference;
}

// Four matrices of 8 rows of 16 bytes each: lane 8 i + r gives where row r of matrix i lies in shared memory, and lane
// 4 g + t gets the bytes 4 t to 4 t + 3 of row g of each.
__device__ __forceinline__ void load_matrices(unsigned (&parts)[4], const void* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ float half_bits_to_float(unsigned bits) {
  float value;
  asm("{ .reg .b16 half; cvt.u16.u32 half, %1; cvt.f32.f16 %0, half; }" : "=f"(value) : "r"(bits));
  return value;
}

// 2^x with a relative error of 2^-22, and 0 for what is smaller than normal numbers.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Copies 16 bytes to shared memory, or writes zeros where not `there`; `from` must be valid all the same.
__device__ __forceinline__ void copy_16(void* to, const void* from, bool there) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void copy_4(void* to, const void* from) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(from) : "memory");
}

// The copies since the last call make up a group.
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all of the thread's groups but the last kLeft have arrived.
template <int kLeft>
__device__ __forceinline__ void wait_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

}  // namespace fllm::cuda
