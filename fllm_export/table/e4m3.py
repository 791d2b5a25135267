"""The OCP 8-bit float format E4M3: exponent bias 7, no infinities, not a number at 0x7f and 0xff."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

LARGEST = 448.0
NAN = 0x7F
"""The byte that is not a number, apart from its sign."""

_SMALLEST_NORMAL = 2.0**-6
# The bits between a float32's exponent and the three mantissa bits that e4m3 keeps; both biases in e4m3's own place.
_DROPPED_BITS = 20
_BIAS_DIFFERENCE = (127 - 7) << 3


def _numbers() -> F32:
    """Return what each byte stands for, float32 [256]."""
    byte = np.arange(256)
    sign = np.where(byte & 0x80, -1.0, 1.0)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    normal = (1 + mantissa / 8) * np.exp2(exponent - 7.0)
    numbers = sign * np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal)
    numbers[[NAN, NAN | 0x80]] = np.nan
    return numbers.astype(np.float32)


_NUMBERS = _numbers()


def of_bytes(codes: npt.NDArray[np.generic]) -> F32:
    """Return the numbers that bytes stand for."""
    return _NUMBERS[codes.view(np.uint8)]


def to_bytes(values: F32) -> npt.NDArray[np.uint8]:
    """Return the bytes of the nearest finite numbers, ties to even: 448 for all that are above it."""
    magnitudes = np.minimum(np.abs(values), np.float32(LARGEST))
    bits = magnitudes.view(np.uint32)
    half_less_one = np.uint32((1 << (_DROPPED_BITS - 1)) - 1)
    rounded = (bits + half_less_one + ((bits >> _DROPPED_BITS) & 1)) >> _DROPPED_BITS
    normal = rounded.astype(np.int32) - _BIAS_DIFFERENCE
    subnormal = np.rint(magnitudes * 2.0**9).astype(np.int32)
    nearest = np.where(magnitudes < _SMALLEST_NORMAL, subnormal, normal).astype(np.uint8)
    signs = np.where(np.signbit(values), np.uint8(0x80), np.uint8(0))
    return nearest | signs
