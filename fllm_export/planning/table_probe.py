"""How fast this machine writes and scans a table, measured on a small one that the product's own code makes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fllm_export.engines.names import LogProbs
from fllm_export.engines.partial import Partial, merge
from fllm_export.planning.machine import median_seconds
from fllm_export.planning.probe_folder import probe_folder
from fllm_export.runtime.user_table import UserTable
from fllm_export.table import sketch
from fllm_export.table.clusters import features, principal_directions
from fllm_export.table.codecs import Tensors, codec
from fllm_export.table.footprint import Footprint
from fllm_export.table.options import TableOptions
from fllm_export.table.shard_rows import ShardRows
from fllm_export.table.sketch_maker import SketchMaker, sample_rows
from fllm_export.table.tile_maker import TileMaker
from fllm_export.table.writer import TableWriter

F32 = npt.NDArray[np.float32]
Result = TypeVar("Result")

_CHUNK_ROWS = 65_536
_CHUNK_NUMBERS = 1 << 24
_SCAN_BYTES = 192 << 20
_WRITING_S = 4.0
_TINY_ROWS = 64
_ONE_SHARD = 1 << 50
_SHARE = 4
_SEED = 0


@dataclass(frozen=True)
class WriteRates:
    """What writing costs, in seconds.

    Attributes:
        encode: per row, of the codec and of checking the numbers.
        publish: per byte, of joining, writing, syncing and hashing a shard.
        shard: per shard whatever its size: its syncs, renames and records.
        cluster: per row and halving of the rows of a shard.
        parting: per shard, of looking for clusters that lie well apart.
        bounds: per row of a clustered table, besides its halvings: decoding, coordinates and bounds.
        sketch: per row, decoding included.
        sketch_once: per table, for choosing the sketch's dimensions.
    """

    encode: float
    publish: float
    shard: float
    cluster: float = 0.0
    parting: float = 0.0
    bounds: float = 0.0
    sketch: float = 0.0
    sketch_once: float = 0.0


@dataclass(frozen=True)
class ScanRates:
    """What a search of every row costs.

    Attributes:
        rows: of the table that was measured.
        seconds: items in a call -> seconds per row of that call, all threads together.
        merge: items in a call -> seconds for merging the answers of as many machines.
    """

    rows: int
    seconds: dict[int, float]
    merge: dict[int, float]


def measure_table(
    footprint: Footprint,
    folder: Path,
    *,
    threads: int,
    batches: Sequence[int] = (),
    k: int = 100,
    log_probs: LogProbs = "exact",
    machines: int = 1,
) -> tuple[WriteRates, ScanRates]:
    """Write a small table like the one of ``footprint``, and search it.

    The rows are random numbers. That decides nothing but how much the selection of the best has to do, which is
    little in a pass over every row.

    Args:
        footprint: of the planned table.
        folder: where a temporary directory is made.
        threads: of a search.
        batches: items per call.
        k: users per item, lowered where the table has fewer.
        log_probs: as :meth:`UserTable.topk`.
        machines: whose answers are merged.
    """
    with _probe(footprint, folder) as (place, rows, writing):
        table = UserTable.open(place / "table", threads=threads)
        scan = _scanned(table, batches, min(k, len(table)), log_probs, machines)
    return _described(footprint, rows, writing), scan


def measure_writing(footprint: Footprint, folder: Path) -> WriteRates:
    """Write a small table like the one of ``footprint``, in a temporary directory below ``folder``."""
    with _probe(footprint, folder) as (_, rows, writing):
        return _described(footprint, rows, writing)


@contextmanager
def _probe(footprint: Footprint, folder: Path) -> Iterator[tuple[Path, F32, WriteRates]]:
    """Write a table ``table`` in a temporary directory, of rows that are repeated."""
    dim = footprint.item_dim
    rows = _random_rows(min(_CHUNK_ROWS, _CHUNK_NUMBERS // dim, footprint.rows), dim)
    with probe_folder(folder) as place:
        yield place, rows, _written(footprint, rows, place)


def _scanned(table: UserTable, batches: Sequence[int], k: int, log_probs: LogProbs, machines: int) -> ScanRates:
    seconds = {}
    for batch in batches:
        items = _random_rows(batch, table.dim)
        table.topk(items, k, log_probs=log_probs)
        seconds[batch] = median_seconds(partial(table.topk, items, k, log_probs=log_probs)) / len(table)
    return ScanRates(len(table), seconds, {batch: _merging(batch, k, machines) for batch in batches})


def _random_rows(count: int, dim: int) -> F32:
    return np.random.default_rng(_SEED).standard_normal((count, dim), dtype=np.float32)


def _written(footprint: Footprint, rows: F32, place: Path) -> WriteRates:
    """Write a table of one shard without anything besides the codes, and return what that costs."""
    shard = _shard_seconds(footprint, rows, place)
    wanted = min(footprint.rows, max(len(rows), _SCAN_BYTES * footprint.rows // footprint.read))
    writer = _writer(footprint, place / "table")
    encoding, written = 0.0, 0
    while written < wanted and (written < 2 * len(rows) or encoding < _WRITING_S):
        part = rows[: wanted - written]
        encoding += _seconds(partial(writer.add, part))
        written += len(part)
    finishing = _seconds(writer.finish)
    size = sum(path.stat().st_size for path in (place / "table").glob("*.safetensors"))
    # The mean, not the median: a build adds the slow chunks up too.
    return WriteRates(encode=encoding / written, publish=max(0.0, finishing - shard) / size, shard=shard)


def _writer(footprint: Footprint, directory: Path) -> TableWriter:
    options = TableOptions(footprint.quant, shard_bytes=_ONE_SHARD, sketch="no", cluster="no", refine=footprint.refine)
    return TableWriter(directory, options, dim=footprint.item_dim, scan_dim=footprint.dim)


def _shard_seconds(footprint: Footprint, rows: F32, place: Path) -> float:
    def write() -> None:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            writer = _writer(footprint, Path(folder))
            writer.add(rows[:_TINY_ROWS])
            writer.finish()

    return median_seconds(write, budget_s=0.2)


def _described(footprint: Footprint, rows: F32, plain: WriteRates) -> WriteRates:
    """Add what the sketch and the clusters of the planned table cost, measured on one chunk of rows."""
    if not footprint.clustered and not footprint.sketch_dims:
        return plain
    rows = rows[:, : footprint.dim]
    stored = codec(footprint.quant).encode(rows)
    rates = plain
    if footprint.clustered:
        rates = _clustered(footprint, stored, rates)
    return _sketched(footprint, rows, stored, rates) if footprint.sketch_dims else rates


def _clustered(footprint: Footprint, stored: Tensors, rates: WriteRates) -> WriteRates:
    tiles = TileMaker("yes", footprint.dim, footprint.tile_rows)
    tiles.decide(whole_table=False)
    known, shard = codec(footprint.quant), ShardRows(codec(footprint.quant), stored, footprint.dim)
    rows = len(shard)
    directions = principal_directions(shard.sample(rows // 4 + 1))
    before = _seconds(lambda: features(shard.part(0, rows), directions))
    order, ordering = _timed(lambda: tiles.order(shard))
    tiling = _seconds(lambda: tiles.tiling(shard))
    ordered = ShardRows(known, {name: array[order] for name, array in stored.items()}, footprint.dim)
    bounding = _seconds(lambda: tiles.tensors(ordered, None, None))
    count = rows * halvings(rows, footprint.tile_rows)
    cluster = max(0.0, ordering - before) / count if count else 0.0
    return replace(rates, cluster=cluster, parting=max(0.0, tiling - ordering), bounds=(before + bounding) / rows)


def _sketched(footprint: Footprint, rows: F32, stored: Tensors, rates: WriteRates) -> WriteRates:
    maker = SketchMaker("yes", footprint.quant, footprint.dim)
    maker.take_up({"sketch_basis": sketch.make_basis(footprint.dim, footprint.sketch_dims, rows)})
    count = len(rows) // _SHARE + 1
    part = ShardRows(codec(footprint.quant), {name: array[:count] for name, array in stored.items()}, footprint.dim)
    sample = rows[: sample_rows(footprint.dim) // _SHARE]
    return replace(
        rates,
        sketch=_seconds(lambda: maker.tensors(part)) / len(part),
        sketch_once=_SHARE * _seconds(lambda: sketch.choose_dims(sample)),
    )


def halvings(rows: int, tile_rows: int) -> float:
    """Return how often the rows of a shard are halved until they are tiles."""
    return max(0.0, math.log2(rows / tile_rows))


def _merging(batch: int, k: int, machines: int) -> float:
    """Return the seconds that merging the answers of ``machines`` machines takes."""
    if machines == 1:
        return 0.0
    generator = np.random.default_rng(_SEED)
    shape = (batch, k)
    scores = -np.sort(-generator.standard_normal(shape, dtype=np.float32), axis=1)
    ids = generator.integers(1 << 40, size=shape)
    part = Partial(ids, scores, scores, scores[:, 0].astype(np.float64), np.ones(batch))
    return median_seconds(lambda: merge([part] * machines, k), budget_s=0.1)


def _seconds(call: Callable[[], object]) -> float:
    return _timed(call)[1]


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began
