"""Pairs cut into files by ranges of users, so that each can be sorted in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError
from fllm_export.files import publish_json
from fllm_export.pair_files import Ids, PairSource
from fllm_export.progress import Progress, silent
from fllm_export.strict_json import read_object
from fllm_export.training.user_sums import Positions

LEDGER = "parts.json"

_PAIR = np.dtype([("user", "<i8"), ("item", "<i4")])
_PART_PAIRS = 1 << 24
_PARTS_MOST = 512
_SAMPLE = 1 << 20


class UserParts:
    """Files of pairs, each of one range of users, in ascending order of the ranges.

    A part has about 16 million pairs of 12 bytes, more where there would be more than 512 parts.

    Args:
        paths: of the parts.
        sizes: pairs in each.
    """

    def __init__(self, paths: list[Path], sizes: list[int]) -> None:
        self._paths, self._sizes = paths, sizes

    def __iter__(self) -> Iterator[tuple[Ids, Positions]]:
        """Yield the user ids and item positions of each part that is not empty.

        Raises:
            BundleError: a part is not as long as it was written.
        """
        for path, size in zip(self._paths, self._sizes, strict=True):
            pairs = np.fromfile(path, _PAIR)
            if len(pairs) != size or path.stat().st_size != size * _PAIR.itemsize:
                raise BundleError(f"{path} holds {len(pairs)} pairs", expected=f"{size}", fix=f"Delete {path.parent}")
            if size:
                yield pairs["user"].copy(), pairs["item"].astype(np.int64)

    @classmethod
    def open(cls, directory: Path, key: str) -> UserParts:
        """Open the parts that a run with the same key has cut.

        Raises:
            BundleError: they are missing or of another key.
        """
        ledger = read_object(directory / LEDGER, fix=f"Delete {directory}")
        sizes = ledger.get("sizes")
        if ledger.get("key") != key or not isinstance(sizes, list):
            found = f"{directory / LEDGER} is of other pairs"
            raise BundleError(found, expected="the parts of these pairs", fix=f"Delete {directory}")
        return cls(_paths(directory, len(sizes)), sizes)

    @classmethod
    def cut(
        cls,
        source: PairSource,
        located: Callable[[], Iterator[tuple[Ids, Positions]]],
        directory: Path,
        key: str,
        progress: Progress = silent,
    ) -> UserParts:
        """Cut all pairs of a source into parts.

        The ledger, which makes them count, is written when they are on the disk.

        Args:
            source: the pairs with item ids, of which users are sampled for the ranges.
            located: yields the same pairs with positions of items below 2^31.
            directory: where the parts go; those of an interrupted run are written again.
            key: fingerprint of the pairs.
            progress: counts pairs.
        """
        bounds = _bounds(source)
        paths = _paths(directory, len(bounds) + 1)
        sizes = [0] * len(paths)
        done = 0
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("wb", buffering=1 << 16)) for path in paths]
            for users, items in located():
                for part, pairs in _split(bounds, users, items):
                    pairs.tofile(files[part])
                    sizes[part] += len(pairs)
                done += len(users)
                progress("cutting interactions by user", done, max(done, source.pairs))
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        publish_json(directory / LEDGER, {"key": key, "sizes": sizes})
        return cls(paths, sizes)


def _paths(directory: Path, parts: int) -> list[Path]:
    return [directory / f"part-{number:05d}.pairs" for number in range(parts)]


def _bounds(source: PairSource) -> Ids:
    """Return the users with which parts but the first begin, ascending, so that parts have about the same size."""
    total = source.pairs
    parts = min(_PARTS_MOST, -(-total // _PART_PAIRS))
    if parts <= 1:
        return np.empty(0, np.int64)
    step = max(1, total // _SAMPLE)
    users = np.sort(np.concatenate([batch[::step] for batch, _ in source.batches()]))
    return np.unique(users[np.linspace(0, len(users), parts, endpoint=False).astype(np.int64)[1:]])


def _split(bounds: Ids, users: Ids, items: Positions) -> Iterator[tuple[int, npt.NDArray[np.void]]]:
    """Yield the pairs of each part, in their order."""
    pairs = np.empty(len(users), _PAIR)
    pairs["user"], pairs["item"] = users, items
    parts = np.searchsorted(bounds, users, side="right").astype(np.uint16)
    order = np.argsort(parts, kind="stable")
    pairs, parts = pairs[order], parts[order]
    ends = np.searchsorted(parts, np.arange(len(bounds) + 1), side="right")
    first = 0
    for part, end in enumerate(ends.tolist()):
        if end > first:
            yield part, pairs[first:end]
        first = end
