"""The sketch of a table: two or four bits a number, read first to rule rows out (docs/internals/sketch.md).

Rows are turned by a *basis*, a matrix [m, d] whose rows are orthonormal up to float32, and every coordinate is
rounded to one of 16 levels. The upper two bits of the level are the *coarse* code, the lower two the *fine* bits:

    coarse code = 2 * upper - 3                        in {-3, -1, 1, 3}
    full code   = 2 * (4 * upper + lower) - 15         in {-15, -13, ..., 15}

With each code come a least-squares scale and the norms of what the code leaves out. For a query q and a row x, both
as real numbers, w = basis q and any row of the sketch:

    q.x <= scale * w.code + max(|w|, |q_out|) * inner + |q_out| * outer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.table import native
from fllm_export.table.bit_planes import BLOCK_ROWS, GROUP_DIMS, from_blocks, into_blocks, pack, unpack, whole_groups
from fllm_export.table.fixed_point import ROUNDING, WEIGHT, fix, fix_to, limit, squares, weights

Array = npt.NDArray[np.generic]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]

COARSE_CODE_LIMIT = 6.0
FULL_CODE_LIMIT = 64.0
"""No code's squared norm exceeds this times m: that bounds what rounding the query can do."""

COARSE_UNBIASED = 1.15
FULL_UNBIASED = 1.011
"""Least squares shrinks: a rotated row's product with a query that it is close to is so much larger than estimated."""

_DTYPES = {"U8": np.uint8, "U16": np.uint16}
_KEPT = 8
_NONE = np.empty((0, 0))
_STEPS = (0.27, 0.285, 0.30, 0.32, 0.45)
_LARGEST_NORM = 2.0**60
_LARGEST_FACTOR = np.uint16(0x7F7F)
_FLOAT_SLACK = 2.0**-18
_NORM_SLACK = 1e-9
_ROW_SLACK = 2.0**-22
"""A row given as float32 numbers differs from its codes times its scale, which it stands for, by less than this."""


def tensors(rows: int, dim: int, sketch_dims: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the safetensors dtype and shape of each sketch tensor of a shard.

    Factors are bfloat16 numbers (the upper half of a float32) in the order scale, inner norm and, when the basis has
    fewer rows than the table has dimensions, outer norm.
    """
    blocks = -(-rows // BLOCK_ROWS)
    codes = ("U8", (blocks, sketch_dims // GROUP_DIMS, 4 * BLOCK_ROWS))
    factors = ("U16", (blocks, 2 if sketch_dims >= dim else 3, BLOCK_ROWS))
    return {
        "sketch_coarse": codes,
        "sketch_coarse_factors": factors,
        "sketch_fine": codes,
        "sketch_fine_factors": factors,
        "sketch_basis": ("F32", (sketch_dims, dim)),
    }


def make_basis(dim: int, sketch_dims: int, rows: F32 | None = None, queries: F32 | None = None, seed: int = 0) -> F32:
    """Return a basis float32 [m, d]: a random rotation of all dimensions, or of those that matter most.

    The rotation of all dimensions, where they are a power of two, is Hadamard's matrix with the columns' signs drawn at
    random: libfllm turns rows by additions alone where it finds such a basis.

    Args:
        dim: d, dimension of a row.
        sketch_dims: m, a multiple of 16; at most d rounded up to one.
        rows: a sample of the table's rows; needed when m < d.
        queries: item vectors of the kind to come, when there are any; they sharpen the choice.
        seed: of the rotation.
    """
    return _basis(dim, sketch_dims, _directions(rows, queries) if sketch_dims < dim else _NONE, seed)


def _basis(dim: int, sketch_dims: int, directions: F64, seed: int) -> F32:
    generator = np.random.default_rng(seed)
    if sketch_dims == dim and dim & (dim - 1) == 0:
        signs = generator.choice((-1.0, 1.0), dim)
        return _snapped(_hadamard(dim) * signs / np.sqrt(dim))
    rotation = np.linalg.qr(generator.standard_normal((sketch_dims, sketch_dims)))[0]
    return _snapped(rotation[:, :dim] if sketch_dims >= dim else rotation @ directions[:, :sketch_dims].T)


def _hadamard(dim: int) -> F64:
    """Return Hadamard's matrix [d, d] of 1 and -1 in Sylvester's order, d a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < dim:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _directions(rows: F32 | None, queries: F32 | None) -> F64:
    """Return the directions [d, d] of rows and queries, in columns, those that matter most first."""
    moments = [_moment(part) for part in (rows, queries) if part is not None]
    _, vectors = np.linalg.eigh(np.sum(moments, 0))
    return vectors[:, ::-1]


def _snapped(matrix: F64) -> F32:
    """Return the nearest matrix whose numbers are exact in fixed point."""
    return np.ascontiguousarray(weights(matrix) / WEIGHT, np.float32)


def choose_dims(rows: F32, queries: F32 | None = None, *, seed: int = 0) -> int:
    """Return how many dimensions the sketch of such rows should have: half, three quarters or all of them.

    The choice reads the fewest bytes in an exact pass over the sample: the sketch, and the rows that the full codes do
    not rule out at the level of the sample's eighth best score. Without queries, half of the rows stand in for them,
    which errs on the side of more dimensions: item vectors fill fewer directions than users do.

    Args:
        rows: a sample of at least some thousand rows, float32 [n, d].
        queries: some hundred item vectors, when there are any.
        seed: of the rotation.
    """
    dim = rows.shape[1]
    whole = whole_groups(dim)
    if len(rows) < 2:  # nothing to judge by
        return whole
    # What shapes a basis must not judge it: a few vectors always lie well within a basis made of them.
    asked, table, known = (rows[::2], rows[1::2], None) if queries is None else (queries[::2], rows, queries[1::2])
    asked = asked[np.linspace(0, len(asked) - 1, min(len(asked), 32)).astype(int)]
    candidates = sorted({-(-whole * part // (4 * GROUP_DIMS)) * GROUP_DIMS for part in (2, 3, 4)})
    directions = _directions(table, known) if candidates[0] < dim else _NONE
    best: int = min(candidates, key=lambda dims: _bytes_read(table, asked, _basis(dim, dims, directions, seed)))
    return best


def _bytes_read(rows: F32, queries: F32, basis: F32) -> float:
    """Return the bytes that an exact pass over an int8 table of such rows reads, a row."""
    sketch_dims, dim = basis.shape
    stored = encode(rows, basis)
    read, parts = codes(stored, fine=True)[: len(rows)], factors(stored, fine=True)[:, : len(rows)]
    wide = queries.astype(np.float64)
    prepared = [query(values, basis) for values in wide]
    products = read @ np.stack([each.limb for each in prepared], 1).astype(np.float64)
    survivors = 0
    for each, product, scores in zip(prepared, products.T, wide @ rows.astype(np.float64).T, strict=True):
        _, bounds = bounds_of(product, parts, each, fine=True)
        survivors += int((bounds >= np.sort(scores)[-_KEPT:][0]).sum())
    factor_bytes = 4 if sketch_dims >= dim else 6
    return float(sketch_dims / 2 + factor_bytes + survivors / (len(rows) * len(queries)) * (dim + 4 + 64))


class Encoder:
    """Encodes rows by one basis, float32 [m, d]: what the basis itself loses is measured once, in O(m^2 d).

    Attributes:
        basis: that basis.
    """

    def __init__(self, basis: F32) -> None:
        self.basis = basis
        sketch_dims, dim = basis.shape
        matrix = basis.astype(np.float64)
        self._snapped = float(np.linalg.norm(matrix - weights(basis) / WEIGHT))
        if sketch_dims < dim:
            self._defect = float(np.linalg.norm(np.eye(sketch_dims) - matrix @ matrix.T)) + _NORM_SLACK
        else:
            self._defect = 3 * float(np.linalg.norm(np.eye(dim) - matrix.T @ matrix)) + _NORM_SLACK

    def room(self, rows: int) -> dict[str, Array]:
        """Return uninitialised sketch tensors of that many rows, without the basis."""
        shapes = tensors(rows, self.basis.shape[1], len(self.basis)).items()
        return {name: np.empty(shape, _DTYPES[dtype]) for name, (dtype, shape) in shapes if name != "sketch_basis"}

    def encode(self, values: F32, out: Mapping[str, Array]) -> None:
        """Fill in the sketch tensors of rows float32 [n, d], without the basis; the last block is filled up with 0."""
        if native.takes(values):
            native.sketch(values, self.basis, self._defect, self._snapped, out)
            return
        for name, made in _encode(values, self.basis, self._defect, self._snapped).items():
            out[name][...] = made


def encode(values: F32, basis: F32) -> dict[str, Array]:
    """Return the sketch tensors of rows float32 [n, d], without the basis."""
    encoder = Encoder(basis)
    made = encoder.room(len(values))
    encoder.encode(values, made)
    return made


def _encode(values: F32, basis: F32, defect: float, snapped: float) -> dict[str, Array]:
    """Encode rows t = Bx rounded to integers times a unit: the bound holds for any t, and counts what it lost of Bx."""
    sketch_dims, dim = basis.shape
    fixed, units = fix(values)
    turned = fixed @ weights(basis).T
    peaks = np.abs(turned).max(1)
    numbers, _ = fix_to(turned, peaks)
    steps = peaks * units / (limit(sketch_dims) * WEIGHT)
    row_lost = ROUNDING * np.sqrt(dim) * units
    norms = np.sqrt(squares(fixed)) * units
    lengths = norms + row_lost
    lost = ROUNDING * np.sqrt(sketch_dims) * steps + snapped * lengths
    extra = (1.01 * defect + _ROW_SLACK) * lengths + 1.01 * (lost + 1.002 * row_lost)
    outer = None
    if sketch_dims < dim:
        inside = np.sqrt(squares(numbers)) * steps
        # |x - B't|^2 = |x|^2 - 2 Bx.t + |B't|^2, where |Bx - t| is lost and |B't|^2 at most (1 + defect) |t|^2.
        outside = (
            norms * norms - (1 - defect) * (inside * inside) + 2 * lost * inside + _NORM_SLACK * (lengths * lengths)
        )
        outer = np.sqrt(np.maximum(outside, 0.0)) + row_lost
    levels = _levels(numbers)
    upper, lower = levels >> 2, levels & 3
    coarse, full = 2 * upper.astype(np.float64) - 3, 2 * levels.astype(np.float64) - 15
    return {
        "sketch_coarse": into_blocks(pack(upper)),
        "sketch_coarse_factors": _factors(numbers, steps, coarse, lengths, extra, outer),
        "sketch_fine": into_blocks(pack(lower)),
        "sketch_fine_factors": _factors(numbers, steps, full, lengths, extra, outer),
    }


@dataclass(frozen=True)
class SketchQuery:
    """An item vector prepared for the sketch of one basis.

    Attributes:
        limb: int8 [m], round(w / scale).
        scale: float32.
        rounding: norm of what rounding w left out, and of the float32 arithmetic of a bound.
        inner: multiplies the inner norms of rows.
        outer: multiplies the outer norms of rows.
    """

    limb: npt.NDArray[np.int8]
    scale: np.float32
    rounding: float
    inner: float
    outer: float

    def statistical(self, dim: int, deviations: float, *, fine: bool) -> SketchQuery:
        """Return the query whose upper bounds lie ``deviations`` standard deviations above the unbiased estimate.

        What a code leaves out points anywhere in its space, so its product with the query spreads by
        norm * norm / sqrt(dimensions) only.
        """
        sketch_dims = len(self.limb)
        scale = np.float32(self.scale * (FULL_UNBIASED if fine else COARSE_UNBIASED))
        inner = deviations * self.inner / np.sqrt(sketch_dims)
        outer = deviations * self.outer / np.sqrt(max(1, dim - sketch_dims))
        return SketchQuery(self.limb, scale, 0.0, inner, outer)


def query(values: F64, basis: F32) -> SketchQuery:
    """Prepare an item vector float64 [d], as the engine sees it (integers times their scale)."""
    matrix = basis.astype(np.float64)
    turned = matrix @ values
    slack = _NORM_SLACK * float(np.linalg.norm(values))
    outer = float(np.linalg.norm(values - matrix.T @ turned)) + slack
    inner = max(float(np.linalg.norm(turned)) + slack, outer)
    peak = np.abs(turned).max(initial=0.0)
    scale = np.float32(max(peak / 127, np.finfo(np.float32).tiny)) if peak > 0 else np.float32(1)
    limb = np.rint(turned / np.float64(scale)).clip(-127, 127)
    rounding = float(np.linalg.norm(turned - np.float64(scale) * limb)) + slack + _FLOAT_SLACK * inner
    return SketchQuery(limb.astype(np.int8), scale, rounding, inner * (1 + _FLOAT_SLACK), outer * (1 + _FLOAT_SLACK))


def bounds_of(products: F64, factors: F64, prepared: SketchQuery, *, fine: bool) -> tuple[F64, F64]:
    """Return estimates and upper bounds of rows, from the products [n] of codes and limb and factors [2 or 3, n]."""
    scale, inner, *outer = factors
    estimates: F64 = scale * products * np.float64(prepared.scale)
    limit = FULL_CODE_LIMIT if fine else COARSE_CODE_LIMIT
    slack = scale * prepared.rounding * np.sqrt(limit * len(prepared.limb))
    bounds: F64 = estimates + slack + inner * prepared.inner + (outer[0] * prepared.outer if outer else 0.0)
    return estimates, bounds


def codes(stored: dict[str, Array], *, fine: bool) -> F64:
    """Return the coarse or the full codes [rows filled up to blocks, m]."""
    upper = _two_bits(stored["sketch_coarse"])
    if not fine:
        return 2 * upper.astype(np.float64) - 3
    return 2 * (upper << 2 | _two_bits(stored["sketch_fine"])).astype(np.float64) - 15


def factors(stored: dict[str, Array], *, fine: bool) -> F64:
    """Return scale, inner and perhaps outer norms, [2 or 3, rows filled up to blocks], of coarse or full codes."""
    parts = _widen(stored["sketch_fine_factors" if fine else "sketch_coarse_factors"]).transpose(1, 0, 2)
    return parts.reshape(len(parts), -1)


def _moment(vectors: F32) -> F64:
    """Return the second moment [d, d] of vectors, scaled to trace 1."""
    wide = vectors.astype(np.float64)
    moment: F64 = wide.T @ wide
    return moment / max(float(np.trace(moment)), float(np.finfo(np.float64).tiny))


def _levels(numbers: F64) -> npt.NDArray[np.int8]:
    """Return each integer's level, 0 to 15: per row, the step of the least residual whose codes are short enough."""
    sketch_dims = numbers.shape[1]
    means = np.maximum(np.sqrt(squares(numbers) / sketch_dims), 1.0)
    narrow = numbers.astype(np.float32)
    best = np.full(len(numbers), -1.0)
    # Where no step is fit, one so wide that every code is 1 or -1 is always short enough.
    levels = np.where(narrow >= 0, 8, 7).astype(np.int8)
    for step in _STEPS:
        tried = np.floor(narrow * (1.0 / (step * means)).astype(np.float32)[:, None] + np.float32(8)).clip(0, 15)
        codes = (2 * tried - 15).astype(np.float64)
        lengths = squares(codes)
        short = (squares((2 * np.floor(tried / 4) - 3).astype(np.float64)) <= COARSE_CODE_LIMIT * sketch_dims) & (
            lengths <= FULL_CODE_LIMIT * sketch_dims
        )
        along = np.einsum("ij,ij->i", codes, numbers)
        explained = along * along / lengths
        better = short & (explained > best)
        best[better] = explained[better]
        levels[better] = tried[better].astype(np.int8)
    return levels


def _factors(numbers: F64, steps: F64, codes: F64, lengths: F64, extra: F64, outer: F64 | None) -> U16:
    """Return bfloat16 scale, inner and outer norms [blocks, 2 or 3, 16] of t = numbers * steps, norms rounded up."""
    along = np.einsum("ij,ij->i", numbers, codes)
    of_codes = squares(codes)
    usable = lengths <= _LARGEST_NORM
    scale = _nearest(np.where(usable, np.maximum(along, 0.0) / of_codes * steps, 0.0))
    chosen = _widen(scale)
    residual = squares(numbers) * (steps * steps) - 2 * chosen * (along * steps) + chosen * chosen * of_codes
    inner = np.sqrt(np.maximum(residual, 0.0) + _NORM_SLACK * (lengths * lengths)) + extra
    parts = [scale, *(np.where(usable, _above(norm), _LARGEST_FACTOR) for norm in (inner, outer) if norm is not None)]
    count = len(lengths)
    padded = np.zeros((len(parts), -(-count // BLOCK_ROWS) * BLOCK_ROWS), np.uint16)
    padded[:, :count] = parts
    return np.ascontiguousarray(padded.reshape(len(parts), -1, BLOCK_ROWS).transpose(1, 0, 2))


def _nearest(numbers: F64) -> U16:
    bits = numbers.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _above(numbers: F64) -> U16:
    """Return the least bfloat16 not below each number; numbers are at least 0."""
    with np.errstate(over="ignore"):
        narrow = numbers.astype(np.float32)
    up = np.where(narrow.astype(np.float64) < numbers, np.nextafter(narrow, np.float32(np.inf)), narrow)
    return ((up.view(np.uint32).astype(np.uint64) + 0xFFFF) >> 16).clip(0, int(_LARGEST_FACTOR)).astype(np.uint16)


def _widen(factors: Array) -> F64:
    return (factors.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def _two_bits(blocks: Array) -> U8:
    """Return the two-bit numbers [rows filled up to blocks, m] of a tensor of codes."""
    return unpack(from_blocks(blocks), blocks.shape[1] * GROUP_DIMS)
