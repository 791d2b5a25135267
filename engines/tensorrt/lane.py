"""What one search at a time needs on a GPU: a stream, contexts of the head plan, and room for items and results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.engines.tensorrt.device_numbers import DeviceNumbers
from fllm_export.engines.tensorrt.device_table import Block
from fllm_export.engines.tensorrt.gpu import Event, Gpu, Memory, Pinned, Stream, rounded
from fllm_export.engines.tensorrt.head_plan import HeadPlan
from fllm_export.engines.tensorrt.launcher import Bound, Launcher

RESULTS = 4
"""Slices whose results may wait for the host."""

_ALL_ROWS = 1 << 62


@dataclass(frozen=True)
class Slice:
    """Rows of a block that one launch scores.

    Attributes:
        block: theirs.
        first: the first of them in the block, a multiple of the chunk.
        rows: how many, whole chunks.
    """

    block: Block
    first: int
    rows: int

    @property
    def first_row(self) -> int:
        """Number of the first row in the table."""
        return self.block.first + self.first

    @property
    def valid(self) -> int:
        """How many of them the table has; the others are padding."""
        return min(self.rows, self.block.rows - self.first)


@dataclass(frozen=True)
class Scored:
    """What the plan returns for a slice.

    Attributes:
        slice: the rows.
        scores: float32 [B, K], descending; -inf where there are no more rows.
        rows: int64 [B, K], numbers in the table.
        m: float32 [B], the largest score.
        l: float32 [B], sum of exp(score - m).
    """

    slice: Slice
    scores: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    m: npt.NDArray[np.float32]
    l: npt.NDArray[np.float32]  # noqa: E741 - the design's name, as in (m, l)


class Lane:
    """Runs the head plan slice by slice. One search at a time.

    Args:
        gpu: where.
        head: the plan.
        numbers: the integers that launches read, shared by all lanes.
        dim: numbers in a row.
        bias: whether rows have a bias.
    """

    def __init__(self, gpu: Gpu, head: HeadPlan, numbers: DeviceNumbers, dim: int, bias: bool) -> None:
        self._gpu, self._head, self._numbers = gpu, head, numbers
        self._dim, self._bias = dim, bias
        self.stream = Stream(gpu)
        self._launchers: dict[int, Launcher] = {}
        most = head.most_items
        self._limbs_bytes = 4 * head.digits * most * dim
        self._vectors = Memory(gpu, self._limbs_bytes + 4 * most)
        self._pinned_vectors = Pinned(gpu, self._limbs_bytes + 4 * most)
        self._outputs = Memory(gpu, _output_bytes(most, head.k))
        self._results = [Pinned(gpu, _output_bytes(most, head.k)) for _ in range(RESULTS)]
        self._ended = [Event(gpu) for _ in range(RESULTS)]
        self._waiting: list[tuple[int, Slice]] = []
        self._batch = self._padded = 0
        self._turn = 0

    def begin(self, limbs: npt.NDArray[np.float32], scales: npt.NDArray[np.float64]) -> None:
        """Bring the items, [digits, B, d] and [B]; B is filled up to a power of two, for which there are graphs."""
        self._batch = limbs.shape[1]
        self._padded = min(self._head.most_items, 1 << (self._batch - 1).bit_length())
        there = self._pinned_vectors.array(np.float32, (self._head.digits, self._padded, self._dim))
        there[:] = 0
        there[:, : self._batch] = limbs
        their_scales = self._pinned_vectors.array(np.float32, (self._padded,), self._limbs_bytes)
        their_scales[:] = 1
        their_scales[: self._batch] = scales
        self.stream.copy(self._vectors.address, self._pinned_vectors.address, self._vectors.size)

    def launch(self, part: Slice, address: int) -> None:
        """Put a slice on the stream, and the copy of its results; ``address`` is where its block lies."""
        profile = self._head.profile(self._padded)
        if profile not in self._launchers:
            self._launchers[profile] = Launcher(self._gpu, self._head.plan, profile, self.stream)
        self._launchers[profile].launch(self._binding(part, address))
        place, self._turn = self._turn, (self._turn + 1) % RESULTS
        self.stream.copy(self._results[place].address, self._outputs.address, _output_bytes(self._padded, self._head.k))
        self.stream.record(self._ended[place])
        self._waiting.append((place, part))

    @property
    def items(self) -> int:
        """Items of a launch, those included that fill a batch up."""
        return self._padded

    @property
    def waiting(self) -> int:
        """Slices whose results were not collected; RESULTS at most."""
        return len(self._waiting)

    def collect(self) -> Scored:
        """Wait for the results of the slice that was launched first, and return them."""
        place, part = self._waiting.pop(0)
        self._ended[place].finish()
        k, whole = self._head.k, (self._padded, self._head.k)
        at = _Offsets(self._padded, k)
        results = self._results[place]
        scores, rows = results.array(np.float32, whole, at.scores), results.array(np.int64, whole, at.rows)
        m, total = (results.array(np.float32, (self._padded,), offset) for offset in (at.m, at.l))
        mine = slice(0, self._batch)
        return Scored(part, scores[mine].copy(), rows[mine] + part.first_row, m[mine].copy(), total[mine].copy())

    def _binding(self, part: Slice, address: int) -> tuple[Bound, ...]:
        rows, items, k, dim = part.rows, self._padded, self._head.k, self._dim
        shapes = {"codes": (rows, dim), "scales": (rows,), "bias": (rows,)}
        lie = part.block.layout.addresses(address, part.first)
        at = _Offsets(items, k)
        valid = _ALL_ROWS if part.valid == rows else part.valid
        return (
            *(Bound(name, shapes[name], where) for name, where in lie.items()),
            Bound("limbs", (self._head.digits, items, dim), self._vectors.address),
            Bound("query_scale", (items,), self._vectors.address + self._limbs_bytes),
            Bound("valid_rows", (), self._numbers.address(valid)),
            Bound("rows", (items, k), self._outputs.address + at.rows),
            Bound("scores", (items, k), self._outputs.address + at.scores),
            Bound("m", (items,), self._outputs.address + at.m),
            Bound("l", (items,), self._outputs.address + at.l),
        )


class _Offsets:
    """Where the outputs lie, one after the other, on boundaries that suit TensorRT."""

    def __init__(self, items: int, k: int) -> None:
        self.rows = 0
        self.scores = rounded(8 * items * k)
        self.m = self.scores + rounded(4 * items * k)
        self.l = self.m + rounded(4 * items)
        self.size = self.l + rounded(4 * items)


def _output_bytes(items: int, k: int) -> int:
    return _Offsets(items, k).size
