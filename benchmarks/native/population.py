"""Synthetic users and items, made chunk by chunk from a seed: the same rows again without keeping them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.native.profile import Profile

F32 = npt.NDArray[np.float32]
Kind = Literal["trained", "gaussian", "citeulike-a", "movielens-1m"]
PROFILES: tuple[Kind, ...] = ("citeulike-a", "movielens-1m")

_CHUNK_NUMBERS = 1 << 24
_NOISE = 0.3
_SPREAD = 0.35
_ITEMS = 1 << 62


@dataclass(frozen=True)
class Population:
    """Users and items of one kind.

    ``trained`` is like what training leaves: directions from a basis of d / 4 whose singular values decay as
    j^-1/2, full-rank noise with a twelfth of the energy (0.3 of the norm), and norms spread log-normally
    (sigma 0.35; items have none). ``gaussian`` has full rank and independent standard normal numbers. The others are
    drawn from a :class:`Profile` of a real table, whose dimension is the most that they can have.

    Attributes:
        kind: which of them.
        rows: number of users.
        dim: dimension of a row.
        seed: of everything drawn.

    Raises:
        ValueError: the profile has fewer dimensions.
    """

    kind: Kind
    rows: int
    dim: int
    seed: int

    def __post_init__(self) -> None:
        if self.kind in PROFILES and self.dim > self._profile.dim:
            raise ValueError(f"rows of {self.kind} have at most {self._profile.dim} dimensions, not {self.dim}")

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.kind}-{self.rows}x{self.dim}-{self.seed}"

    def chunks(self) -> Iterator[F32]:
        """Yield all rows, the same ones each time."""
        step = max(1, _CHUNK_NUMBERS // self.dim)
        for number, start in enumerate(range(0, self.rows, step)):
            count = min(step, self.rows - start)
            generator = np.random.default_rng([self.seed, number])
            if self.kind in PROFILES:
                yield self._profile.users(generator, count, self.dim)
            else:
                yield self._draw(generator, count, _SPREAD)

    def all_rows(self) -> F32:
        """Return all rows in memory."""
        rows = np.empty((self.rows, self.dim), np.float32)
        start = 0
        for chunk in self.chunks():
            rows[start : start + len(chunk)] = chunk
            start += len(chunk)
        return rows

    def items(self, count: int) -> F32:
        """Return item vectors [count, d]."""
        generator = np.random.default_rng([self.seed, _ITEMS])
        if self.kind in PROFILES:
            return self._profile.items(generator, count, self.dim)
        return self._draw(generator, count, 0.0)

    def _draw(self, generator: np.random.Generator, count: int, spread: float) -> F32:
        noise = generator.standard_normal((count, self.dim), dtype=np.float32)
        if self.kind == "gaussian":
            return noise
        rank = len(self._basis)
        directions = generator.standard_normal((count, rank), dtype=np.float32) @ self._basis
        norms = np.exp(np.float32(spread) * generator.standard_normal((count, 1), dtype=np.float32))
        scale = np.float32(_NOISE / np.sqrt(self.dim))
        rows: F32 = (directions + noise * scale) * norms
        return rows

    @cached_property
    def _profile(self) -> Profile:
        return Profile.load(self.kind)

    @cached_property
    def _basis(self) -> F32:
        """Singular values times orthonormal directions, [rank, d], of unit expected norm."""
        rank = max(1, self.dim // 4)
        generator = np.random.default_rng([self.seed, _ITEMS + 1])
        directions, _ = np.linalg.qr(generator.standard_normal((self.dim, rank)))
        values = np.arange(1, rank + 1) ** -0.5
        basis: F32 = ((values / np.linalg.norm(values))[:, None] * directions.T).astype(np.float32)
        return basis
