"""Points of other libraries: on the same rows, with the same items, in the same run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.extras import package_version
from fllm_export.sweep.machine import settled_private_bytes
from fllm_export.sweep.peers.base import Contender, Index, Setting
from fllm_export.sweep.peers.catalogue import LIBRARIES, Library
from fllm_export.sweep.subject import Subject
from fllm_export.sweep.truth import F32, I64


@dataclass(frozen=True, eq=False)
class PeerIndex:
    """An index of another library, and the searches of it that are measured.

    Attributes:
        library: whose index it is.
        contender: builds it.
        threads: threads of its searches.
        batches: items per call.
    """

    library: Library
    contender: Contender
    threads: int
    batches: Sequence[int]

    def searches(self) -> Iterator[tuple[str, dict[str, Any], Setting, int]]:
        """Yield name, axes, setting and batch of each search."""
        index = self.contender.name.removeprefix(self.library.name).strip()
        version = package_version(self.library.package)
        for batch in self.batches:
            for setting in self.contender.settings:
                fixed = {"index": index, "version": version, "batch": batch, "threads": self.threads}
                knobs = "".join(f"-{name}{value:g}" for name, value in setting.items())
                name = f"{self.contender.name}-{version}{knobs}-b{batch}-t{self.threads}".replace(", ", "-")
                yield name.replace(" ", "-"), {**fixed, "log_probs": "none", **setting}, setting, batch

    def build(self, subject: Subject) -> BuiltPeer:
        """Build the index.

        Raises:
            ImportError, RuntimeError: as :meth:`Contender.build`.
        """
        rows, bias, items = subject.corpus
        if bias is not None:
            rows, items = _with_bias(rows, bias, items)
        # Which ranks no user differently. FAISS's RaBitQ ranks at random where rows are much longer than items.
        length = _length(items)
        items = items * np.float32(_length(rows) / length if length > 0 else 1)
        before, began = settled_private_bytes(), time.monotonic()
        index = self.contender.build(rows, self.threads)
        seconds = time.monotonic() - began
        held = index.file_bytes + max(0, settled_private_bytes() - before)
        kept = rows.nbytes if index.keeps_rows else 0
        return BuiltPeer(index, np.ascontiguousarray(items), seconds, (held + kept) / len(rows))


def _with_bias(rows: F32, bias: F32, items: F32) -> tuple[F32, F32]:
    """Return rows and items in which the bias is one more dimension.

    Its mean is left out, which ranks no user differently. The rest, b, becomes s b in rows and 1 / s in items. Scores
    do not depend on s, but quantisers do: their error grows with (R^2 + s^2 B^2) (Z^2 + 1 / s^2), where R, B and Z are
    the root mean squares of the lengths of rows, of b and of items. s^2 = R / (B Z) makes it least.
    """
    rest = bias - bias.mean(dtype=np.float64)
    lengths = _length(rows), _length(rest), _length(items)
    size = math.sqrt(lengths[0] / (lengths[1] * lengths[2])) if min(lengths) > 0 else 1.0
    more, ones = (rest * size).astype(np.float32), np.full(len(items), 1 / size, np.float32)
    return np.column_stack([rows, more]), np.column_stack([items, ones])


def _length(vectors: F32) -> float:
    """Return the root mean square of the lengths of vectors [n, d], or of numbers [n]."""
    return float(np.sqrt(np.vdot(vectors, vectors) / len(vectors)))


@dataclass(frozen=True, eq=False)
class BuiltPeer:
    """A built index.

    Attributes:
        index: the index.
        items: the item vectors as it takes them, float32 [B, d].
        build_s: seconds that building it took.
        bytes_per_user: memory that it takes per row, the fp32 rows included where it needs them.
    """

    index: Index
    items: F32
    build_s: float
    bytes_per_user: float

    def search(self, z: F32, k: int, setting: Setting) -> tuple[I64, npt.NDArray[np.float32]]:
        """Return the ids [b, k], and that all rows were looked at, as far as the library tells."""
        return self.index.search(z, k, setting), np.ones(len(z), np.float32)


def peer_indexes(
    wanted: Iterable[str], rows: int, threads: Sequence[int], batches: Sequence[int]
) -> tuple[list[PeerIndex], dict[str, int]]:
    """Return the indexes of the libraries that are installed, and why others are left out.

    Args:
        wanted: names of :data:`LIBRARIES`.
        rows: number of rows.
        threads: thread counts.
        batches: items per call.
    """
    found: list[PeerIndex] = []
    left_out: dict[str, int] = {}
    for name in wanted:
        library = LIBRARIES[name]
        indexes = [
            PeerIndex(library, contender, count, batches) for contender in library.contenders(rows) for count in threads
        ]
        if package_version(library.package) is None:
            searches = sum(len(list(index.searches())) for index in indexes)
            left_out[f"{library.name} is not installed (pip install {library.package})"] = searches
        else:
            found += indexes
    return found, left_out


def failure(index: PeerIndex, error: Exception) -> str:
    """Return why an index could not be built, in one line."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{index.contender.name} cannot be built here: {first[:120]}"
