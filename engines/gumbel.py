"""Counter-based Gumbel noise: a number for each (seed, user id), the same on every tile, thread and machine.

Bits come from Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with the user
id as counter and the seed as key, and logarithms from :mod:`fllm_export.portable_log`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fllm_export.portable_log import log

F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(seed: int, ids: npt.NDArray[np.int64]) -> U64:
    """Return 64 random bits for each id, uint64 [n]: the first two words of Philox4x32-10."""
    counter = ids.astype(np.uint64)
    words = [counter & _LOW, counter >> _SHIFT, np.zeros_like(counter), np.zeros_like(counter)]
    keys = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(_ROUNDS):
        first, second = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = [
            (second >> _SHIFT) ^ words[1] ^ np.uint64(keys[0]),
            second & _LOW,
            (first >> _SHIFT) ^ words[3] ^ np.uint64(keys[1]),
            first & _LOW,
        ]
        keys = [(key + step) & 0xFFFFFFFF for key, step in zip(keys, _WEYL, strict=True)]
    return (words[1] << _SHIFT) | words[0]


def gumbel(seed: int, ids: npt.NDArray[np.int64]) -> F64:
    """Return standard Gumbel noise for each id, float64 [n]: -log(-log(u)), u uniform in the open (0, 1)."""
    uniform = ((philox(seed, ids) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -log(-log(uniform))
