"""``fllm-export estimate``: what a table takes, before anything is built."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fllm_export.cli.finite_range import FiniteRange
from fllm_export.cli.options import DIRECTORY, log_probs_option, table_options, threads_option
from fllm_export.cli.output import Output, byte_text, columns, json_option, pass_output
from fllm_export.counted import counted

if TYPE_CHECKING:
    from fllm_export.engines.names import LogProbs
    from fllm_export.planning.estimate import Plan
    from fllm_export.planning.quantity import Quantity
    from fllm_export.table.options import TableOptions

_GB = 10**9


def _count(value: str) -> int:
    """Return an integer of 1 or more that may be written as 1e9 or 1_000_000."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 1 <= number < math.inf or number % 1:
        raise click.BadParameter(f"{value!r} is not an integer of 1 or more, for example 1000000 or 1e6")
    return int(number)


def _one(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    return None if value is None else _count(value)


def _several(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in value.split(","))


@click.command()
@click.argument("source", type=DIRECTORY, required=False)
@click.option("--rows", callback=_one, help="Number of users, for example 1e9. Default: those of SOURCE.")
@click.option("--dim", callback=_one, help="Dimension of a user row. Default: that of SOURCE.")
@click.option("--machines", callback=_one, default="1", show_default=True, help="Machines that share the rows evenly.")
@click.option("--batch", "batches", callback=_several, default="1,16,128", show_default=True, help="Items per call.")
@click.option("-k", "--k", callback=_one, default="100", show_default=True, help="Users per item.")
@click.option(
    "--memory-gb",
    type=FiniteRange(0, min_open=True),
    help="Memory of each machine in 10^9 bytes. Default: that of this machine.",
)
@click.option(
    "--disk-gb",
    type=FiniteRange(0, min_open=True),
    help="Free disk space of each machine in 10^9 bytes. Default: what is free in --folder.",
)
@click.option(
    "--folder",
    type=DIRECTORY,
    default=".",
    show_default=True,
    help="Where the probe writes its temporary files; put it on the disk of the table.",
)
@click.option(
    "--sketch-dims",
    callback=_one,
    help="Dimensions of the sketch, which the rows decide. Default: those of SOURCE, otherwise all, which is the most.",
)
@log_probs_option
@table_options
@threads_option
@json_option
@pass_output
def estimate(
    output: Output,
    source: Path | None,
    rows: int | None,
    dim: int | None,
    machines: int,
    batches: tuple[int, ...],
    k: int,
    memory_gb: float | None,
    disk_gb: float | None,
    folder: Path,
    sketch_dims: int | None,
    log_probs: LogProbs | None,
    table: TableOptions,
    threads: int | None,
) -> None:
    """Print what a user table takes: bytes, memory, time to build, time to search, and what does not fit.

    SOURCE is a bundle, a user table or a checkpoint whose shape is taken; it is not needed with `--rows` and `--dim`.
    Nothing is built. A probe of some seconds measures how fast this machine reads memory and disk, and how fast it
    writes and searches a small table of the same kind. Every number is shown with its arithmetic.
    """
    from fllm_export.planning import estimate as planning

    output.progress("probe", 0, 1)
    plan = planning.estimate(
        rows,
        dim,
        source=source,
        machines=machines,
        batches=batches,
        k=k,
        log_probs=log_probs or "exact",
        sketch_dims=sketch_dims,
        memory_bytes=None if memory_gb is None else int(memory_gb * _GB),
        disk_bytes=None if disk_gb is None else int(disk_gb * _GB),
        threads=threads,
        folder=folder,
        quant=table.quant,
        shard_bytes=table.shard_bytes,
        sketch=table.sketch,
        cluster=table.cluster,
        refine=table.refine,
    )
    output.progress("probe", 1, 1)
    output.result(plan.to_dict(), _text(plan))


def _text(plan: Plan) -> str:
    asked, footprint = plan.question, plan.footprint
    some = "one machine" if asked.machines == 1 else f"each of {asked.machines:,} machines"
    parts = [
        f"{counted(asked.shape.rows, 'user')} x {asked.shape.dim:,}, {asked.options.quant}; "
        f"{counted(footprint.rows, 'row')} on {some} "
        f"({asked.shape.rows:,} / {asked.machines:,}), in {counted(len(footprint.shard_rows), 'shard')}",
        f"Bytes\n{_lines(plan.bytes)}",
        f"Time, as measured on this machine{_load(plan)}\n{_lines(plan.seconds)}",
        f"Search of every row: top-{asked.k:,}, log-probabilities: {asked.log_probs}\n{_scans(plan)}",
        _fits(plan),
    ]
    return "\n\n".join(parts)


def _load(plan: Plan) -> str:
    if not plan.machine.busy:
        return ""
    return f". It was busy ({plan.machine.told()}), so times are longer than on a quiet machine"


def _lines(quantities: dict[str, Quantity]) -> str:
    rows = [(name, _amount(quantity), quantity.arithmetic) for name, quantity in quantities.items()]
    names, amounts = (max(len(row[i]) for row in rows) for i in (0, 1))
    return "\n".join(f"{name:<{names}}  {amount:>{amounts}}  = {words}" for name, amount, words in rows)


def _amount(quantity: Quantity) -> str:
    if quantity.unit == "bytes":
        return f"{quantity.value:,.0f} bytes ({byte_text(quantity.value)})"
    return f"{quantity.value:,.1f} s" if quantity.value < 3600 else f"{quantity.value / 3600:,.1f} h"


def _scans(plan: Plan) -> str:
    header = ["items", "ms per call", "ms per item", "items/s", "bound by"]
    rows = [
        [
            str(scan.batch),
            f"{scan.call.value * 1e3:,.2f}",
            f"{scan.item.value * 1e3:,.2f}",
            f"{scan.throughput.value:,.1f}",
            scan.bound,
        ]
        for scan in plan.scans
    ]
    steps = "\n".join(f"{counted(scan.batch, 'item')}: {scan.call.arithmetic}" for scan in plan.scans)
    return f"{columns(header, rows)}\n{steps}"


def _fits(plan: Plan) -> str:
    asked = plan.question
    if not plan.shortages:
        return f"It fits into {asked.memory_bytes:,} bytes of memory and {asked.disk_bytes:,} bytes of disk."
    lines = []
    for short in plan.shortages:
        fix = f"Enough, each by itself: {', '.join(short.remedies)}." if short.remedies else "Nothing here is enough."
        lines.append(
            f"DOES NOT FIT: {short.what} needs {short.needed:,} bytes and there are {short.available:,}. {fix}"
        )
    return "\n".join(lines)
