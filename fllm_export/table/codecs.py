"""How a user row is stored: fp32, fp16, int8, fp8 (e4m3), int4, int4row, int2 or int1, always with a scale of its own.

A codec turns a row into *values* times one float32 scale, and stores the values in few bits:

    row = scale * value            (elementwise)

Values are numbers of a fixed grid, so products with an integer query sum without rounding in float64:
that is what makes the score of a stored row the same number on every engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.table import bit_planes, e4m3, native
from fllm_export.table.codec_names import CodecName
from fllm_export.table.odd_grid import odd_grid
from fllm_export.table.rounding import Grid, Rounding, nearest

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Number = TypeVar("Number", bound=np.generic)
Tensors = Mapping[str, npt.NDArray[np.generic]]

INT4_GROUP = 32
_LARGEST = float(np.finfo(np.float32).max)
_TINY = np.float32(np.finfo(np.float32).tiny)


class Codec(ABC):
    """One way to store rows of ``dim`` float32 numbers.

    Attributes:
        name: the codec's name in ``--quant`` and in ``table.json``.
        exact_query: whether the item vector is quantised to integers too, so that scores are exact sums.
        in_blocks: whether a shard stores the codes in blocks of 16 rows (:mod:`fllm_export.table.bit_planes`); outside
            of shards every tensor has a row for every user.
        group_dims: dimensions that are stored together in a block; a row's last ones are filled up to as many.
    """

    name: ClassVar[CodecName]
    exact_query: ClassVar[bool]
    in_blocks: ClassVar[bool] = False
    group_dims: ClassVar[int] = 1

    @abstractmethod
    def tensors(self, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return each stored tensor's safetensors dtype and its shape for one row."""

    @abstractmethod
    def grid(self, rows: F32) -> tuple[Grid, dict[str, npt.NDArray[np.generic]]]:
        """Decide the scales of ``rows`` [n, d]; return the grid, and the stored tensors beside ``codes``."""

    def pack(self, codes: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return the tensor ``codes`` as it is stored, from one code per number [n, d]."""
        return codes

    def encode(self, rows: F32, rounding: Rounding = nearest) -> dict[str, npt.NDArray[np.generic]]:
        """Return the stored tensors of finite ``rows`` [n, d]; ``scales`` is float32 [n]."""
        if rounding is nearest and native.takes(rows):
            return self._encode_natively(rows)
        grid, beside = self.grid(rows)
        rounded = rounding(rows, grid)
        with np.errstate(over="ignore"):
            scales = beside["scales"].astype(np.float32) * rounded.factors
        return {"codes": self.pack(rounded.codes), **beside, "scales": scales.clip(0, _LARGEST)}

    def _encode_natively(self, rows: F32) -> dict[str, npt.NDArray[np.generic]]:
        shapes = self.tensors(rows.shape[1]).items()
        stored = {name: np.empty((len(rows), *shape), _NUMPY_DTYPES[dtype]) for name, (dtype, shape) in shapes}
        native.encode(self.name, rows, stored)
        return stored

    @abstractmethod
    def numbers(self, stored: Tensors, dim: int) -> npt.NDArray[Any]:
        """Return the unscaled values [n, d] of stored rows, in any type that holds them exactly, as float32 does."""

    def values(self, stored: Tensors, dim: int) -> F64:
        """Return the unscaled values [n, d] of stored rows."""
        return self.numbers(stored, dim).astype(np.float64)

    def decode(self, stored: Tensors, dim: int) -> F32:
        """Return the rows [n, d] that the stored tensors stand for, rounded to float32."""
        scales = stored["scales"]
        if native.takes(scales.reshape(-1, 1)) and 1 <= dim <= native.DIM_MAX:
            return native.decode(self.name, {name: stored[name] for name in self.tensors(dim)}, dim)
        # A row at the end of float32's range may round past it.
        with np.errstate(over="ignore"):
            rows = self.numbers(stored, dim).astype(np.float32) * stored["scales"].view(np.float32)[:, None]
        return rows.clip(-_LARGEST, _LARGEST, out=rows)

    def rows(self, stored: Tensors, dim: int) -> F64:
        """Return the same rows, exact to float64."""
        scales: F64 = stored["scales"].astype(np.float64)
        return self.values(stored, dim) * scales[:, None]

    def finite(self, stored: Tensors) -> Bools:
        """Return for each stored row whether all of its numbers are finite, bool [n]."""
        return np.isfinite(stored["scales"].view(np.float32))

    def row_bytes(self, dim: int) -> int:
        """Return the bytes that one row takes, its scale included."""
        return sum(_ITEM_BYTES[dtype] * int(np.prod(shape)) for dtype, shape in self.tensors(dim).values())


class Fp32(Codec):
    """Rows as they are; every scale is 1."""

    name = "fp32"
    exact_query = False

    def tensors(self, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the layout: codes F32 [d], scale."""
        return {"codes": ("F32", (dim,)), "scales": ("F32", ())}

    def grid(self, rows: F32) -> tuple[Grid, dict[str, npt.NDArray[np.generic]]]:
        """Return all of float32 and unit scales."""
        scales = np.ones(len(rows), np.float32)
        return Grid(scales[:, None], _same, _as_float32), {"scales": scales}

    def numbers(self, stored: Tensors, dim: int) -> npt.NDArray[Any]:
        """Return the rows."""
        return stored["codes"]

    def finite(self, stored: Tensors) -> Bools:
        """Return for each row whether its scale and its values are finite."""
        values: Bools = np.isfinite(self.numbers(stored, stored["codes"].shape[1])).all(1)
        return super().finite(stored) & values


class Fp16(Codec):
    """Half precision relative to the row's power of two, so that no row overflows or sinks into subnormals."""

    name = "fp16"
    exact_query = False

    def tensors(self, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the layout: codes F16 [d], scale."""
        return {"codes": ("F16", (dim,)), "scales": ("F32", ())}

    def grid(self, rows: F32) -> tuple[Grid, dict[str, npt.NDArray[np.generic]]]:
        """Scale each row into (-1, 1] by a power of two, which costs no precision, and round to float16."""
        _, exponents = np.frexp(np.abs(rows).max(1, initial=0.0))
        scales = np.ldexp(np.float32(1), exponents.clip(-125, 127)).astype(np.float32)
        return Grid(scales[:, None], _to_float16, _as_float32), {"scales": scales}

    def numbers(self, stored: Tensors, dim: int) -> npt.NDArray[Any]:
        """Return the float16 values."""
        return stored["codes"]

    def finite(self, stored: Tensors) -> Bools:
        """Return for each row whether its scale and its values are finite."""
        values: Bools = np.isfinite(self.numbers(stored, stored["codes"].shape[1])).all(1)
        return super().finite(stored) & values


class Int8(Codec):
    """Integers in [-127, 127]; scale = max|row| / 127."""

    name = "int8"
    exact_query = True

    def tensors(self, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the layout: codes I8 [d], scale."""
        return {"codes": ("I8", (dim,)), "scales": ("F32", ())}

    def grid(self, rows: F32) -> tuple[Grid, dict[str, npt.NDArray[np.generic]]]:
        """Round to the nearest integer, ties to even."""
        scales = _scales(np.abs(rows).max(1, initial=0.0), 127)
        return Grid(scales[:, None], partial(_to_integers, largest=127), _as_float32), {"scales": scales}

    def numbers(self, stored: Tensors, dim: int) -> npt.NDArray[Any]:
        """Return the integers."""
        return stored["codes"]


class Fp8(Codec):
    """The e4m3 (finite) 8-bit float; scale = max|row| / 448."""

    name = "fp8"
    exact_query = True

    def tensors(self, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the layout: codes F8_E4M3 [d], scale."""
        return {"codes": ("F8_E4M3", (dim,)), "scales": ("F32", ())}

    def grid(self, rows: F32) -> tuple[Grid, dict[str, npt.NDArray[np.generic]]]:
        """Round to the nearest e4m3 number, ties to even."""
        scales = _scales(np.abs(rows).max(1, initial=0.0), e4m3.LARGEST)
        return Grid(scales[:, None], e4m3.to_bytes, e4m3.of_bytes), {"scales": scales}

    def numbers(self, stored: Tensors, dim: int) -> npt.NDArray[Any]:
        """Look the bytes up in the table of the 256 e4m3 numbers."""
        return e4m3.of_bytes(stored["codes"])

    def finite(self, stored: Tensors) -> Bools:
        """Return for each row whether its scale and its values are finite."""
        values: Bools = ((stored["codes"].view(np.uint8) & 0x7F) != e4m3.NAN).all(1)
        return super().finite(stored) & values


class Int4(Codec):
    """Integers in [-7, 7] with an 8-bit multiplier for each group of 32 dims under the row's scale.

    row = scale * group * nibble; group in 0..255, so that the sum of a row stays an integer. The even dim
    is the byte's low nibble; a nibble holds the integer plus 8.
    """

    name = "int4"
    exact_query = True

    def tensors(self, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the layout: codes U8 [ceil(d/2)], groups U8 [ceil(d/32)], scale."""
        groups = -(-dim // INT4_GROUP)
        return {"codes": ("U8", (-(-dim // 2),)), "groups": ("U8", (groups,)), "scales": ("F32", ())}

    def grid(self, rows: F32) -> tuple[Grid, dict[str, npt.NDArray[np.generic]]]:
        """Choose the group multipliers by the groups' maxima; each number is rounded to the nearest integer."""
        count, dim = rows.shape
        padded = _pad(rows, INT4_GROUP).reshape(count, -1, INT4_GROUP)
        maxima = np.abs(padded).max(2, initial=0.0)
        scales = _scales(maxima.max(1, initial=0.0), 7 * 255)
        groups = np.ceil(maxima / (7 * scales[:, None])).clip(0, 255).astype(np.uint8)
        steps = np.repeat(np.maximum(scales[:, None] * groups, _TINY), INT4_GROUP, axis=1)[:, :dim]
        return Grid(steps, partial(_to_integers, largest=7), _as_float32), {"groups": groups, "scales": scales}

    def pack(self, codes: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Put two integers into a byte."""
        nibbles = _pad((codes.view(np.int8) + 8).astype(np.uint8), 2)
        return nibbles[:, ::2] | (nibbles[:, 1::2] << 4)

    def numbers(self, stored: Tensors, dim: int) -> npt.NDArray[Any]:
        """Return nibble times group multiplier: integers of at most 1,785."""
        codes = stored["codes"].view(np.uint8)
        nibbles = np.empty((len(codes), 2 * codes.shape[1]), np.int16)
        nibbles[:, ::2] = codes & 15
        nibbles[:, 1::2] = codes >> 4
        groups = np.repeat(stored["groups"].astype(np.int16), INT4_GROUP, axis=1)[:, :dim]
        return (nibbles[:, :dim] - 8) * groups


class _OddCodec(Codec):
    """Odd integers of few bits, one scale for the row; scales by least squares (:mod:`fllm_export.table.odd_grid`).

    The integer v is stored as (v + largest) / 2: single bits, or two bits in each plane, the upper ones first.
    """

    exact_query = True
    in_blocks = True
    group_dims = bit_planes.GROUP_DIMS
    largest: ClassVar[int]

    def grid(self, rows: F32) -> tuple[Grid, dict[str, npt.NDArray[np.generic]]]:
        """Round to the nearest odd integer; of two equally near ones to the larger."""
        grid, scales = odd_grid(rows, self.largest)
        return grid, {"scales": scales}


class Int2(_OddCodec):
    """The integers -3, -1, 1 and 3."""

    name = "int2"
    largest = 3

    def tensors(self, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the layout: codes U8 [ceil(d/16), 4], scale."""
        return {"codes": ("U8", (bit_planes.groups(dim), 4)), "scales": ("F32", ())}

    def pack(self, codes: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Put four integers into a byte."""
        return bit_planes.pack((codes.view(np.int8) + 3) >> 1)

    def numbers(self, stored: Tensors, dim: int) -> npt.NDArray[Any]:
        """Return the integers, int8."""
        numbers = bit_planes.unpack(stored["codes"], dim).view(np.int8)
        return 2 * numbers - 3


class Int1(_OddCodec):
    """The signs, -1 and 1."""

    name = "int1"
    group_dims = 2 * bit_planes.GROUP_DIMS
    largest = 1

    def tensors(self, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the layout: codes U8 [ceil(d/32), 4], scale."""
        return {"codes": ("U8", (-(-dim // self.group_dims), 4)), "scales": ("F32", ())}

    def pack(self, codes: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Put eight signs into a byte."""
        return bit_planes.pack_bits((codes.view(np.int8) + 1) >> 1)

    def numbers(self, stored: Tensors, dim: int) -> npt.NDArray[Any]:
        """Return the signs, int8."""
        bits = bit_planes.unpack_bits(stored["codes"], dim).view(np.int8)
        return 2 * bits - 1


class Int4Row(_OddCodec):
    """The odd integers from -15 to 15."""

    name = "int4row"
    largest = 15

    def tensors(self, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the layout: codes U8 [2, ceil(d/16), 4], scale."""
        return {"codes": ("U8", (2, bit_planes.groups(dim), 4)), "scales": ("F32", ())}

    def pack(self, codes: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Put the upper and the lower two bits of four integers into a byte each."""
        levels = (codes.view(np.int8) + 15) >> 1
        return np.stack([bit_planes.pack(levels >> 2), bit_planes.pack(levels & 3)], 1)

    def numbers(self, stored: Tensors, dim: int) -> npt.NDArray[Any]:
        """Return the integers, int8."""
        upper, lower = (bit_planes.unpack(stored["codes"][:, plane], dim).view(np.int8) for plane in range(2))
        return 8 * upper + 2 * lower - 15


def codec(name: str) -> Codec:
    """Return the codec of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in CODECS:
        raise UsageError(f"there is no codec {name!r}", expected="one of " + ", ".join(CODECS))
    return CODECS[name]


CODECS: dict[str, Codec] = {c.name: c for c in (Fp32(), Fp16(), Int8(), Fp8(), Int4(), Int4Row(), Int2(), Int1())}

_NUMPY_DTYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "U8": np.uint8, "F8_E4M3": np.uint8}
_ITEM_BYTES = {"F32": 4, "F16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1}


def _scales(maxima: npt.NDArray[np.floating], largest: float) -> F32:
    """Return max / largest; a row of zeros keeps the scale 1, and none is so small that dividing by it overflows."""
    scales = (maxima / largest).astype(np.float32)
    return np.where(maxima > 0, np.maximum(scales, _TINY), np.float32(1)).astype(np.float32)


def _same(numbers: F32) -> F32:
    return numbers


def _as_float32(codes: npt.NDArray[np.generic]) -> F32:
    return codes.astype(np.float32, copy=False)


def _to_float16(numbers: F32) -> npt.NDArray[np.float16]:
    return numbers.astype(np.float16)


def _to_integers(numbers: F32, largest: int) -> npt.NDArray[np.int8]:
    return np.rint(numbers).clip(-largest, largest).astype(np.int8)


def _pad(rows: npt.NDArray[Number], multiple: int) -> npt.NDArray[Number]:
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % multiple)))
