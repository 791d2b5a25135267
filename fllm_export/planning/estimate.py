"""The plan of a table: what it takes on disk, in memory and in time, over one or more machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from fllm_export import arguments
from fllm_export.engines.names import LOG_PROBS, LogProbs
from fllm_export.environment import thread_count
from fllm_export.errors import UsageError
from fllm_export.planning import sizes, times
from fllm_export.planning.fit import Shortage, shortage
from fllm_export.planning.machine import Machine, free_disk, total_memory
from fllm_export.planning.quantity import Quantity
from fllm_export.planning.source import Shape
from fllm_export.planning.table_probe import ScanRates, WriteRates, measure_table
from fllm_export.planning.times import Scan
from fllm_export.table.codec_names import REFINE_DEFAULT, RefineName
from fllm_export.table.footprint import Footprint
from fllm_export.table.options import TableChoices, TableOptions

_ITEM_BYTES_OF_A_USER = 16
"""Of an answer that is to be merged: int64 id, float32 key and float32 score."""
_ITEM_BYTES_OF_A_CANDIDATE = 20
"""Where they are to be ranked again: also the float32 score of the refinement row."""
_ITEM_BYTES = 16
"""And per item two float64: the largest score, and the sum of exponentials relative to it."""


@dataclass(frozen=True)
class Question:
    """What is planned.

    Attributes:
        shape: rows and dimension.
        options: how the table is written.
        machines: that share the rows evenly and search at the same time.
        batches: items per call.
        k: users per item.
        log_probs: as :meth:`fllm_export.UserTable.topk`.
        memory_bytes: of each machine.
        disk_bytes: free on each machine.

    Raises:
        UsageError: a number is invalid, or there are fewer rows than machines.
    """

    shape: Shape
    options: TableOptions
    machines: int
    batches: tuple[int, ...]
    k: int
    log_probs: LogProbs
    memory_bytes: int
    disk_bytes: int

    def __post_init__(self) -> None:
        arguments.integer(self.machines, "machines", least=1)
        arguments.integer(self.k, "k", least=1)
        arguments.one_of(self.log_probs, "log_probs", LOG_PROBS)
        for batch in self.batches:
            arguments.integer(batch, "batch", least=1)
        if self.shape.rows < self.machines:
            raise UsageError(
                f"{self.shape.rows} rows are shared by {self.machines} machines", expected="a row for each machine"
            )

    def footprint(self, options: TableOptions, machines: int, *, largest: bool = True) -> Footprint:
        """Return the footprint of the largest part when the rows are shared by so many machines, or of the smallest."""
        shape = self.shape
        rows = -(-shape.rows // machines) if largest else shape.rows // machines
        return Footprint.of(
            options, rows, shape.dim, scan_dim=shape.scan_dim, bias=shape.bias, sketch_dims=shape.sketch_dims
        )


@dataclass(frozen=True)
class Plan:
    """What a table takes. Everything is per machine unless it says otherwise.

    Attributes:
        question: what was planned.
        machine: how fast this machine moves bytes.
        write: what writing costs on this machine.
        scan: what searching costs on this machine.
    """

    question: Question
    machine: Machine
    write: WriteRates
    scan: ScanRates

    @cached_property
    def footprint(self) -> Footprint:
        """The table of the machine with the most rows."""
        return self.question.footprint(self.question.options, self.question.machines)

    @cached_property
    def bytes(self) -> dict[str, Quantity]:
        """Bytes by name: each part of the files, ``disk``, ``disk of all machines``, memory and network."""
        asked, footprint = self.question, self.footprint
        found = sizes.disk(footprint)
        encoder = asked.shape.encoder_bytes
        if encoder:
            found["encoder"] = Quantity(encoder, "bytes", "its graphs, beside the table")
        if asked.machines > 1:
            found["disk of all machines"] = self._all_disks()
        found["memory to search"] = sizes.serving_memory(footprint, encoder)
        found["memory to write"] = sizes.writing_memory(footprint)
        if asked.machines > 1:
            found["network per item"] = _network(asked, footprint.rows)
        return found

    def _all_disks(self) -> Quantity:
        asked = self.question
        more = asked.shape.rows % asked.machines
        least = asked.footprint(asked.options, asked.machines, largest=False).disk
        words = f"{more or asked.machines:,} machines x {self.footprint.disk:,}"
        if not more:
            return Quantity(asked.machines * least, "bytes", words)
        rest = asked.machines - more
        total = more * self.footprint.disk + rest * least
        return Quantity(total, "bytes", f"{words} + {rest:,} machines x {least:,}")

    @cached_property
    def seconds(self) -> dict[str, Quantity]:
        """Seconds by name: each stage of writing, ``build``, and ``first read from disk``."""
        resident, rate = self.footprint.resident, self.machine.disk_read
        first = Quantity(resident / rate, "seconds", f"{resident:,} bytes / {rate / 1e9:.2f} GB/s")
        return {**times.writing(self.footprint, self.write), "first read from disk": first}

    @cached_property
    def scans(self) -> list[Scan]:
        """A search of every row, for each number of items per call."""
        in_memory = self.bytes["memory to search"].value <= self.question.memory_bytes
        return [
            times.scan(self.footprint, self.scan, batch, self.machine, in_memory=in_memory)
            for batch in self.question.batches
        ]

    @cached_property
    def shortages(self) -> list[Shortage]:
        """What does not fit, and what would."""
        asked = self.question
        encoder = asked.shape.encoder_bytes

        def serving(options: TableOptions, machines: int) -> int:
            return int(sizes.serving_memory(asked.footprint(options, machines), encoder).value)

        def writing(options: TableOptions, machines: int) -> int:
            return int(sizes.writing_memory(asked.footprint(options, machines)).value)

        def disk(options: TableOptions, machines: int) -> int:
            return asked.footprint(options, machines).disk + encoder

        needs: list[tuple[str, Callable[[TableOptions, int], int], int]] = [
            ("memory to search", serving, asked.memory_bytes),
            ("memory to write", writing, asked.memory_bytes),
            ("disk", disk, asked.disk_bytes),
        ]
        found = [
            shortage(what, need, asked.options, asked.machines, has, machines_most=asked.shape.rows)
            for what, need, has in needs
        ]
        return [one for one in found if one is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "question": asdict(self.question),
            "rates": {"machine": asdict(self.machine), "write": asdict(self.write), "scan": asdict(self.scan)},
            "shards": len(self.footprint.shard_rows),
            "sketch_dims": self.footprint.sketch_dims,
            "clustered": self.footprint.clustered,
            "bytes": {name: asdict(quantity) for name, quantity in self.bytes.items()},
            "seconds": {name: asdict(quantity) for name, quantity in self.seconds.items()},
            "scans": [asdict(one) for one in self.scans],
            "fits": not self.shortages,
            "shortages": [asdict(one) for one in self.shortages],
        }


def estimate(
    rows: int | None = None,
    dim: int | None = None,
    *,
    source: str | Path | None = None,
    machines: int = 1,
    batches: Sequence[int] = (1, 16, 128),
    k: int = 100,
    log_probs: LogProbs = "exact",
    sketch_dims: int | None = None,
    memory_bytes: int | None = None,
    disk_bytes: int | None = None,
    threads: int | None = None,
    folder: str | Path = ".",
    **table: Unpack[TableChoices],
) -> Plan:
    """Plan a table without building it. A probe of some seconds measures this machine; no model is needed.

    Bytes on disk are exact, but for the dimensions of a sketch, which the rows decide. Times are those of machines
    like this one. A search is one of every row; tables with a sketch or clusters let other searches read less.

    Args:
        rows: users; those of ``source`` when not given.
        dim: dimension of a user row; that of ``source`` when not given.
        source: a bundle, a user table or a checkpoint whose shape is taken.
        machines: that share the rows evenly and search at the same time.
        batches: items per call.
        k: users per item.
        log_probs: as :meth:`fllm_export.UserTable.topk`.
        sketch_dims: dimensions of the sketch where they are known; those of ``source``, or else all, which is the most.
        memory_bytes: of each machine; this machine's when not given.
        disk_bytes: free on each machine; what is free at ``folder`` when not given.
        threads: of a search; when not given, ``FLLM_NUM_THREADS`` or else every CPU.
        folder: where the probe writes its temporary files.
        **table: as :class:`TableOptions` describes them.

    Raises:
        UsageError: an argument is invalid, or neither ``rows`` and ``dim`` nor a source was given.
        BundleError: the source is damaged.
    """
    place = arguments.path(folder, "folder")
    options = TableOptions(**table)
    question = Question(
        _shape(rows, dim, source, sketch_dims, options.refine),
        options,
        machines,
        tuple(batches),
        k,
        log_probs,
        total_memory() if memory_bytes is None else arguments.integer(memory_bytes, "memory_bytes", least=1),
        free_disk(place) if disk_bytes is None else arguments.integer(disk_bytes, "disk_bytes", least=1),
    )
    count = thread_count(threads)
    machine = Machine.measure(place, count)
    write, scan = measure_table(
        question.footprint(options, machines),
        place,
        threads=count,
        batches=question.batches,
        k=k,
        log_probs=log_probs,
        machines=machines,
    )
    return Plan(question, machine, write, scan)


def _shape(
    rows: int | None, dim: int | None, source: str | Path | None, sketch_dims: int | None, refine: RefineName
) -> Shape:
    known = None if source is None else Shape.of(arguments.path(source, "source"))
    if known is None and (rows is None or dim is None):
        raise UsageError(
            f"rows is {rows} and dim is {dim}",
            expected="both, or a bundle, a user table or a checkpoint to take them from",
        )
    count = known.rows if rows is None and known is not None else rows
    width = known.dim if dim is None and known is not None else dim
    same = known is not None and width == known.dim
    return Shape(
        arguments.integer(count, "rows", least=1),
        arguments.integer(width, "dim", least=1),
        known is not None and known.bias,
        known.sketch_dims if sketch_dims is None and known is not None and same else sketch_dims,
        0 if known is None else known.encoder_bytes,
        known.scan_dim if known is not None and same and refine != "no" else None,
    )


def _network(asked: Question, rows: int) -> Quantity:
    """Return what an item takes on the network, where each machine has so many rows."""
    refined = asked.options.refine != "no"  # then each machine returns as many candidates as the whole table has
    users = min(asked.k * (REFINE_DEFAULT if refined else 1), rows)
    each = _ITEM_BYTES_OF_A_CANDIDATE if refined else _ITEM_BYTES_OF_A_USER
    dim, machines = asked.shape.dim, asked.machines
    return Quantity(
        machines * (4 * dim + each * users + _ITEM_BYTES),
        "bytes",
        f"{machines:,} machines x ({dim:,} x 4 bytes to it + {users:,} {'candidates' if refined else 'users'} x {each} "
        f"bytes and {_ITEM_BYTES} bytes back)",
    )
