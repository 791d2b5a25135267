// What a warp multiplies in a scan for many items, by the rows' codec: its tile of sums, and what they are worth.
#pragma once

#include "cuda/device.hpp"
#include "cuda/e4m3.cuh"
#include "cuda/planes.cuh"
#include "cuda/score.cuh"
#include "cuda/wave.hpp"

namespace fllm::cuda {

constexpr unsigned kChunkDims = 64;  // of each row, that are brought in together; a limb has as many bytes of them
constexpr unsigned kChunkPieces = kChunkDims / kPieceBytes;
constexpr unsigned kWarpItems = 32;  // of a warp's tile: four tiles of the tensor cores

// Where a warp's part of a chunk lies in shared memory.
struct Chunk {
  const std::int8_t* codes;  // of the warp's first row
  const std::int8_t* limbs;  // of its first item, the high ones; those of the next lie `stride` bytes on
  unsigned stride, low;      // the low ones lie `low` bytes on
};

// Rows of codes of eight bits, that follow each other.
struct ByteChunks {
  static constexpr unsigned kRowPieces = kChunkPieces;  // of a row in a chunk
  static constexpr bool kHasOffsets = false;            // whether something of an item's is to be added to its sums

  // Where the i-th piece of a tile's chunk comes from, null: zeros; and where it goes in shared memory.
  __device__ __forceinline__ static const std::int8_t* source(const Wave& wave, std::uint64_t first_row, unsigned chunk,
                                                              unsigned i) {
    const std::uint64_t row = first_row + i / kChunkPieces;
    const unsigned byte = chunk * kChunkDims + i % kChunkPieces * kPieceBytes;
    return row < wave.rows && byte < wave.dim ? wave.codes + row * wave.dim + byte : nullptr;
  }
  __device__ __forceinline__ static unsigned place(unsigned i) { return place(i / kChunkPieces, i % kChunkPieces); }

  // The k-th piece of a row's chunk lies where eight rows' pieces meet no bank twice.
  __device__ __forceinline__ static unsigned place(unsigned row, unsigned piece) {
    return row * kChunkDims + (piece ^ (row / 2 % kChunkPieces)) * kPieceBytes;
  }

  // The row of a warp's that a lane's i-th sum of the m-th tile belongs to.
  __device__ __forceinline__ static unsigned row_of(unsigned lane, unsigned m, unsigned i) {
    return m * 16 + i / 2 * 8 + lane / 4;
  }

  // Puts a piece of an item's limb down.
  __device__ __forceinline__ static void put_limb(std::int8_t* limb, unsigned piece, int4 four) {
    reinterpret_cast<int4*>(limb)[piece] = four;
  }
};

// int8 codes.
struct Int8Chunks : ByteChunks {
  // The warp's 32 rows with the columns of a step: a lane's fragments of both tiles.
  __device__ __forceinline__ static void load_rows(const std::int8_t* codes, unsigned step, unsigned lane,
                                                   unsigned (&rows)[2][4]) {
    FLLM_UNROLL
    for (unsigned m = 0; m < 2; ++m) load_matrices(rows[m], codes + place(m * 16 + lane % 16, 2 * step + lane / 16));
  }
};

// Rows in planes of two bits. A lane's words of a chunk follow those of the lane before; they become bytes in
// registers.
template <unsigned kPlanes>
struct PlaneChunks {
  static constexpr unsigned kRowPieces = kPlanes;
  static constexpr bool kHasOffsets = true;

  static_assert(kStepDims == kChunkDims && kSlabRows == 32);

  __device__ __forceinline__ static const std::int8_t* source(const Wave& wave, std::uint64_t first_row, unsigned chunk,
                                                              unsigned i) {
    const unsigned lane = i % kWarpLanes, plane = i / kWarpLanes % kPlanes, slab = i / kWarpLanes / kPlanes;
    return Planes<kPlanes>::source(wave, first_row + slab * kSlabRows, chunk, plane, lane);
  }
  __device__ __forceinline__ static unsigned place(unsigned i) { return i * kPieceBytes; }

  __device__ __forceinline__ static unsigned row_of(unsigned lane, unsigned m, unsigned i) {
    return lane / 4 * 4 + 2 * m + i / 2;
  }

  // The s-th words of a chunk's four pieces lie together: a lane wants them of its group, and a group is a piece.
  __device__ __forceinline__ static void put_limb(std::int8_t* limb, unsigned piece, int4 four) {
    int* const words = reinterpret_cast<int*>(limb + piece / kChunkPieces * kChunkDims) + piece % kChunkPieces;
    words[0] = four.x, words[4] = four.y, words[8] = four.z, words[12] = four.w;
  }
  __device__ __forceinline__ static int offset(const Item& item) { return Planes<kPlanes>::offset(item); }

  __device__ __forceinline__ static void load_rows(const std::int8_t* codes, unsigned step, unsigned lane,
                                                   unsigned (&rows)[2][4]) {
    typename Planes<kPlanes>::Words words;
    FLLM_UNROLL
    for (unsigned plane = 0; plane < kPlanes; ++plane) {
      words.planes[plane] = reinterpret_cast<const int4*>(codes)[plane * kWarpLanes + lane];
    }
    FLLM_UNROLL
    for (unsigned m = 0; m < 2; ++m) Planes<kPlanes>::fragment(words, m, step, rows[m]);
  }
};

// Rows with both limbs of items: whole numbers, so that the sums are exact.
template <class Chunks>
class IntegerTile : public Chunks {
 public:
  static constexpr unsigned kRowTiles = 2;  // of sixteen rows
  static constexpr bool kExact = true;      // what sum() returns is rounded once
  static constexpr float kUnit = 1.0f;      // of what sum() returns
  static constexpr unsigned kHitLanes = 1;  // that find a hit's exact sum together

  // A row that may reach an item's threshold.
  struct Hit {
    std::uint16_t row, item;  // of the block's tile
    int high, low;
  };

  __device__ __forceinline__ void clear() {
    FLLM_UNROLL
    for (unsigned m = 0; m < kRowTiles; ++m) {
      FLLM_UNROLL
      for (unsigned n = 0; n < 4; ++n) {
        FLLM_UNROLL
        for (unsigned i = 0; i < 4; ++i) high_[m][n][i] = low_[m][n][i] = 0;
      }
    }
  }

  __device__ __forceinline__ void multiply(const Chunk& chunk, unsigned lane) {
    FLLM_UNROLL
    for (unsigned step = 0; step < kChunkDims / 32; ++step) {
      unsigned rows[kRowTiles][4];
      Chunks::load_rows(chunk.codes, step, lane, rows);
      FLLM_UNROLL
      for (unsigned pair = 0; pair < 2; ++pair) {
        const unsigned item = pair * 16 + lane / 16 * 8 + lane % 8;
        const unsigned byte = item * chunk.stride + step * 32 + lane / 8 % 2 * kPieceBytes;
        multiply_limb(high_, rows, chunk.limbs + byte, pair);
        multiply_limb(low_, rows, chunk.limbs + chunk.low + byte, pair);
      }
    }
  }

  // With the item's offset.
  __device__ __forceinline__ float sum(unsigned m, unsigned n, unsigned i, int offset) const {
    return static_cast<float>(128 * high_[m][n][i] + low_[m][n][i] + offset);
  }

  __device__ __forceinline__ Hit hit(unsigned row, unsigned item, unsigned m, unsigned n, unsigned i,
                                     int offset) const {
    return {static_cast<std::uint16_t>(row), static_cast<std::uint16_t>(item), high_[m][n][i], low_[m][n][i] + offset};
  }

  __device__ static double exact_sum(const Hit& hit, const Wave&, std::uint64_t, const Item&, unsigned, unsigned) {
    return 128.0 * hit.high + hit.low;
  }

 private:
  __device__ __forceinline__ static void multiply_limb(int (&sums)[kRowTiles][4][4],
                                                       const unsigned (&rows)[kRowTiles][4], const std::int8_t* limbs,
                                                       unsigned pair) {
    unsigned parts[4];
    load_matrices(parts, limbs);
    FLLM_UNROLL
    for (unsigned m = 0; m < kRowTiles; ++m) {
      FLLM_UNROLL
      for (unsigned n = 0; n < 2; ++n) multiply_tile(sums[m][2 * pair + n], rows[m], parts[2 * n], parts[2 * n + 1]);
    }
  }

  int high_[kRowTiles][4][4], low_[kRowTiles][4][4];  // [row tile, item tile, fragment]
};

using Int8Tile = IntegerTile<Int8Chunks>;
template <unsigned kPlanes>
using PlaneTile = IntegerTile<PlaneChunks<kPlanes>>;

// e4m3 codes and limbs, both made halves in registers: every product is exact, and one sum takes those of both limbs.
// It is rounded as tensor cores round (host/item_error.hpp says how far off it may be), so it only tells which rows are
// looked at again. Tensor cores for 8-bit floats are no help: older GPUs have none, and Hopper's keep about 14 bits.
//
// A lane's four bytes of a piece become the four halves that m16n8k16 wants of it. Which columns those are does not
// matter as long as rows and items agree.
template <unsigned kTiles>
class Fp8Tile : public ByteChunks {
 public:
  static constexpr unsigned kRowTiles = kTiles;
  static constexpr bool kExact = false;
  static constexpr float kUnit = 4096.0f;  // halves are 2^-8 of the codes and 2^-4 of the limbs
  static constexpr unsigned kHitLanes = 8;

  struct Hit {
    std::uint16_t row, item;
  };

  // Limbs from 0 to 127, by 64 more than they are.
  __device__ __forceinline__ static void put_limb(std::int8_t* limb, unsigned piece, int4 four) {
    ByteChunks::put_limb(limb, piece, {raised(four.x), raised(four.y), raised(four.z), raised(four.w)});
  }

  __device__ __forceinline__ void clear() {
    FLLM_UNROLL
    for (unsigned m = 0; m < kRowTiles; ++m) {
      FLLM_UNROLL
      for (unsigned n = 0; n < 4; ++n) {
        FLLM_UNROLL
        for (unsigned i = 0; i < 4; ++i) sums_[m][n][i] = 0.0f;
      }
    }
  }

  __device__ __forceinline__ void multiply(const Chunk& chunk, unsigned lane) {
    FLLM_KEEP_LOOP
    for (unsigned piece = 0; piece < kChunkPieces; ++piece) {
      unsigned rows[kRowTiles][4];
      FLLM_UNROLL
      for (unsigned m = 0; m < kRowTiles; m += 2) {
        unsigned codes[4];  // of rows 0 to 7, 8 to 15, 16 to 23, 24 to 31
        load_matrices(codes, chunk.codes + place(m * 16 + lane, piece));
        FLLM_UNROLL
        for (unsigned eight = 0; eight < 4; ++eight) {
          rows[m + eight / 2][eight % 2] = upper_halves(codes[eight] << 8);
          rows[m + eight / 2][eight % 2 + 2] = upper_halves(codes[eight]);
        }
      }
      const unsigned byte = lane * chunk.stride + piece * kPieceBytes;
      multiply_limb<kHighOnes, kHighMiddle>(rows, chunk.limbs + byte);
      multiply_limb<kLowOnes, kLowMiddle>(rows, chunk.limbs + chunk.low + byte);
    }
  }

  __device__ __forceinline__ float sum(unsigned m, unsigned n, unsigned i, int) const { return sums_[m][n][i]; }

  __device__ __forceinline__ Hit hit(unsigned row, unsigned item, unsigned, unsigned, unsigned, int) const {
    return {static_cast<std::uint16_t>(row), static_cast<std::uint16_t>(item)};
  }

  // kHitLanes lanes take turns at the row's words, `part` says which; each returns the whole sum. All lanes of the warp
  // call it, those that have nothing to sum with no columns.
  __device__ static double exact_sum(const Hit&, const Wave& wave, std::uint64_t row, const Item& item,
                                     unsigned columns, unsigned part) {
    const std::int8_t* const row_codes = wave.codes + row * wave.dim;
    long long sum = 0;
    FLLM_KEEP_LOOP
    for (unsigned first = 4 * part; first < columns; first += 4 * kHitLanes) {
      const unsigned codes = word(row_codes + first), high = word(item.high + first), low = word(item.low + first);
      FLLM_UNROLL
      for (unsigned byte = 0; byte < 4; ++byte) {
        const int whole = 128 * signed_byte(high, byte) + signed_byte(low, byte);
        sum += static_cast<long long>(whole_of_e4m3(codes >> 8 * byte & 255u)) * whole;
      }
    }
    FLLM_UNROLL
    for (int mask = kHitLanes / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
    return static_cast<double>(sum) * kE4m3Unit;
  }

 private:
  // A byte u below 128 after these makes the half 8192 + 8 u; 64 + u / 16. Less the middle, where u is 64, that is
  // eight times the high limb, and a sixteenth of the low one: 128 times as much, as it should be.
  static constexpr unsigned kHighOnes = 0x70707070u, kHighMiddle = 0x70407040u;
  static constexpr unsigned kLowOnes = 0x54545454u, kLowMiddle = 0x54405440u;

  __device__ __forceinline__ static int raised(int four_limbs) {
    return static_cast<int>((static_cast<unsigned>(four_limbs) & 0x7F7F7F7Fu) ^ 0x40404040u);
  }
  // The upper bytes of both 16-bit parts as halves.
  __device__ __forceinline__ static unsigned upper_halves(unsigned codes) {
    return (codes & 0x80008000u) | (codes >> 1 & 0x3F803F80u);
  }
  __device__ __forceinline__ static unsigned word(const std::int8_t* at) {
    return *reinterpret_cast<const unsigned*>(at);
  }
  __device__ __forceinline__ static int signed_byte(unsigned word, unsigned number) {
    return static_cast<std::int8_t>(word >> 8 * number);
  }

  template <unsigned kOnes, unsigned kMiddle>
  __device__ __forceinline__ void multiply_limb(const unsigned (&rows)[kRowTiles][4], const std::int8_t* limbs) {
    unsigned parts[4];
    load_matrices(parts, limbs);
    FLLM_UNROLL
    for (unsigned n = 0; n < 4; ++n) {
      const unsigned even = subtract_halves(__byte_perm(parts[n], kOnes, 0x4240), kMiddle);
      const unsigned odd = subtract_halves(__byte_perm(parts[n], kOnes, 0x4341), kMiddle);
      FLLM_UNROLL
      for (unsigned m = 0; m < kRowTiles; ++m) multiply_tile(sums_[m][n], rows[m], even, odd);
    }
  }

  float sums_[kRowTiles][4][4];  // [row tile, item tile, fragment]
};

}  // namespace fllm::cuda
