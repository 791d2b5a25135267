"""What a contender is, and what several of them share."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from fllm_export.sweep.truth import F32, I64

Setting = Mapping[str, float]
"""Knobs of a search by name. More effort never lowers the recall."""

NO_KNOBS: tuple[Setting, ...] = ({},)


class Index(Protocol):
    """An index over all rows.

    Attributes:
        file_bytes: size of the files that it reads in place. What it holds in memory is measured, less the float32
            rows that all contenders are given and some rank again by.
        keeps_rows: whether it needs those float32 rows when it is searched.
    """

    file_bytes: int
    keeps_rows: bool

    def search(self, z: F32, k: int, setting: Setting) -> I64:
        """Return the ids [B, k] of the best rows, best first."""
        ...


class Contender(Protocol):
    """A library, an index type of it, and the settings worth trying."""

    @property
    def name(self) -> str:
        """What results call it: the library and the index."""
        ...

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All settings that are tried."""
        ...

    def build(self, rows: F32, threads: int) -> Index:
        """Index the rows.

        Raises:
            ImportError: the library is not installed, or does not load here.
            RuntimeError: this version of it has no such index, or cannot build it for such rows.
        """
        ...


def multiples(name: str, *values: float) -> tuple[Setting, ...]:
    """Return one setting for each value of a single knob."""
    return tuple({name: value} for value in values)


def parts(rows: F32, count: int) -> list[tuple[int, F32]]:
    """Cut the rows into ``count`` runs of about one length, each with its first row's number.

    A library that spreads only the items of a batch over threads is given one index for each thread.
    """
    cuts = [len(rows) * number // count for number in range(count + 1)]
    return [(a, rows[a:b]) for a, b in itertools.pairwise(cuts)]


def rank_again(rows: F32, z: F32, candidates: I64, k: int) -> I64:
    """Return the best ``k`` of each item's candidates [B, c] by their float32 products, best first."""
    found = np.empty((len(z), k), np.int64)
    for item, (vector, ids) in enumerate(zip(z, candidates, strict=True)):
        scores = rows[ids] @ vector
        kept = np.argpartition(-scores, k - 1)[:k]
        found[item] = ids[kept[np.argsort(-scores[kept])]]
    return found
