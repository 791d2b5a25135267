/* What the Python module needs to write tables. It is no part of the C interface: it may change with every version.
 *
 * Each function has a definition in NumPy, in fllm_export/table, and gives the same bits on every instruction set and
 * for every number of threads. Arrays are row-major and contiguous; numbers are finite but for fllm_write_check's. */
#ifndef FLLM_WRITE_WRITING_H
#define FLLM_WRITE_WRITING_H

#include "fllm/fllm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The number of the first row of rows [n, dim] that holds a number that is not finite; n when there is none. */
FLLM_API fllm_status fllm_write_check(const float* rows, size_t n, size_t dim, size_t* first, fllm_error* error);

/* Rounds rows [n, dim] to the nearest codes. `codes`, `groups` (int4 alone, otherwise null) and `scales` [n] are the
 * stored tensors with a row for every user. */
FLLM_API fllm_status fllm_write_encode(const char* codec, const float* rows, size_t n, size_t dim, void* codes,
                                       uint8_t* groups, float* scales, fllm_error* error);

/* What the stored tensors stand for, rounded to float32, [n, dim]. */
FLLM_API fllm_status fllm_write_decode(const char* codec, const void* codes, const uint8_t* groups, const float* scales,
                                       size_t n, size_t dim, float* rows, fllm_error* error);

/* Points [n, 33] that rows [n, dim] are told apart by, from `count` <= 32 directions [count, dim]. */
FLLM_API fllm_status fllm_write_features(const float* rows, size_t n, size_t dim, const float* directions, size_t count,
                                         float* points, fllm_error* error);

/* An order of rows, by their points [n, 33], in which each `tile_rows` of them lie together. */
FLLM_API fllm_status fllm_write_order(const float* points, size_t n, size_t tile_rows, int64_t* order,
                                      fllm_error* error);

/* The same with tiles that end where clusters do, where these lie well apart: then `ends`, which has room for n, gets
 * the end of each tile, and `tiles` their number. Otherwise the order is that of fllm_write_order, and `tiles` is 0. */
FLLM_API fllm_status fllm_write_tiling(const float* points, size_t n, size_t tile_rows, int64_t* order, int64_t* ends,
                                       size_t* tiles, fllm_error* error);

/* Directions [tiles, dim] and extents [tiles, 4] of the tiles of rows [n, dim]; `bias` [n] may be null. */
FLLM_API fllm_status fllm_write_bounds(const float* rows, size_t n, size_t dim, const float* bias, size_t tile_rows,
                                       float* directions, float* extents, fllm_error* error);

/* The sketch of rows [n, dim] by a basis [sketch_dims, dim] whose defect and rounding to fixed point are given. */
FLLM_API fllm_status fllm_write_sketch(const float* rows, size_t n, size_t dim, const float* basis, size_t sketch_dims,
                                       double defect, double snapped, uint8_t* coarse, uint16_t* coarse_factors,
                                       uint8_t* fine, uint16_t* fine_factors, fllm_error* error);

/* Rows [n, dim] of users: factors[u] times the sum of the vectors [count, dim] of the items of user u, added in float64
 * in their order and rounded once. Those items are items[starts[u]] to items[starts[u + 1] - 1], each below `count`. */
FLLM_API fllm_status fllm_write_user_rows(const float* vectors, size_t count, size_t dim, const int32_t* items,
                                          const int64_t* starts, size_t n, const double* factors, float* rows,
                                          fllm_error* error);

#ifdef __cplusplus
}
#endif

#endif
