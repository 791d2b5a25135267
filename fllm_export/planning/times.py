"""How long writing and searching a planned table takes, from measured rates, each with its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from fllm_export.counted import counted
from fllm_export.planning.machine import Machine
from fllm_export.planning.quantity import Quantity
from fllm_export.planning.table_probe import ScanRates, WriteRates, halvings
from fllm_export.table.footprint import Footprint

_MEMORY_BOUND = 1.3
"""A search that takes at most so many times a plain read of the same bytes is bound by memory."""


def writing(footprint: Footprint, rates: WriteRates) -> dict[str, Quantity]:
    """Return the seconds of each stage of writing a table from rows in memory, and at the end their sum, ``build``."""
    rows, shards = footprint.rows, len(footprint.shard_rows)
    found = {"encode": _per(rows, "rows", rates.encode)}
    if footprint.clustered:
        splits = sum(count * halvings(count, footprint.tile_rows) for count in footprint.shard_rows)
        depth = splits / rows
        found["cluster"] = Quantity(
            splits * rates.cluster + rows * rates.bounds + shards * rates.parting,
            "seconds",
            f"{counted(rows, 'row')} x ({depth:.2f} halvings x {_short(rates.cluster)} + {_short(rates.bounds)}) + "
            f"{counted(shards, 'shard')} x {rates.parting * 1e3:.1f} ms",
        )
    if footprint.sketch_dims:
        found["sketch"] = Quantity(
            rows * rates.sketch + rates.sketch_once,
            "seconds",
            f"{counted(rows, 'row')} x {_short(rates.sketch)} + {rates.sketch_once:.1f} s (choice of dimensions)",
        )
    found["write, sync and hash"] = Quantity(
        footprint.disk * rates.publish + shards * rates.shard,
        "seconds",
        f"{footprint.disk:,} bytes x {rates.publish * 1e9:.2f} ns + "
        f"{counted(shards, 'shard')} x {rates.shard * 1e3:.1f} ms",
    )
    found["build"] = Quantity(
        sum(part.value for part in found.values()),
        "seconds",
        " + ".join(f"{part.value:,.1f}" for part in found.values()),
    )
    return found


@dataclass(frozen=True)
class Scan:
    """A search of every row, on all machines at once.

    Attributes:
        batch: items per call.
        call: seconds per call: one machine's rows, and the merge.
        item: seconds per item.
        throughput: items per second.
        bound: what limits it: ``memory``, ``arithmetic`` or ``disk``.
    """

    batch: int
    call: Quantity
    item: Quantity
    throughput: Quantity
    bound: str


def scan(footprint: Footprint, rates: ScanRates, batch: int, machine: Machine, *, in_memory: bool) -> Scan:
    """Return the time of a call with ``batch`` items, over the rows of one machine."""
    rows, each, merging = footprint.rows, rates.seconds[batch], rates.merge[batch]
    seconds, plain = rows * each, footprint.read / machine.memory_read
    words = f"{counted(rows, 'row')} x {each * 1e9:.3f} ns"
    bound = "memory" if seconds <= _MEMORY_BOUND * plain else "arithmetic"
    words += f" (a plain read of {footprint.read:,} bytes at {machine.memory_read / 1e9:.1f} GB/s: {_short(plain)})"
    from_disk = 0.0 if in_memory else footprint.read / machine.disk_read
    if from_disk > seconds:
        words = f"{footprint.read:,} bytes / {machine.disk_read / 1e9:.2f} GB/s from disk"
        seconds, bound = from_disk, "disk"
    if merging:
        words += f" + {_short(merging)} merge"
    total = seconds + merging
    return Scan(
        batch,
        Quantity(total, "seconds", words),
        Quantity(total / batch, "seconds", f"{_short(total)} / {counted(batch, 'item')}"),
        Quantity(batch / total, "items/s", f"{counted(batch, 'item')} / {_short(total)}"),
        bound,
    )


def _per(count: int, what: str, seconds: float) -> Quantity:
    return Quantity(count * seconds, "seconds", f"{count:,} {what} x {_short(seconds)}")


def _short(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
