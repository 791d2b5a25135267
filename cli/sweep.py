"""``fllm-export sweep``: latency against recall, for many tables and searches at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fllm_export.cli.finite_range import FiniteRange
from fllm_export.cli.output import Output, columns, json_option, pass_output
from fllm_export.counted import counted
from fllm_export.engines.names import LOG_PROBS
from fllm_export.engines.registry import ENGINES
from fllm_export.table.codec_names import CODEC_NAMES, REFINE_NAMES

if TYPE_CHECKING:
    from fllm_export.sweep.choice import Choice
    from fllm_export.sweep.record import Record
    from fllm_export.sweep.sweep import Sweep


PEERS = ("faiss", "usearch", "scann")
"""Other libraries, as :mod:`fllm_export.sweep.peers.catalogue` has them."""

Read = Callable[[str, click.Parameter, click.Context], Any]
"""Reads one value of an axis."""


def _one_of(*choices: str) -> Read:
    return lambda text, option, context: click.Choice(choices).convert(text, option, context)


def _switch(text: str, option: click.Parameter, context: click.Context) -> bool:
    return bool(click.Choice(("yes", "no")).convert(text, option, context) == "yes")


def _integer(text: str, option: click.Parameter, context: click.Context) -> int:
    return int(click.IntRange(1)(text, option, context))


def _budget(text: str, option: click.Parameter, context: click.Context) -> float | None:
    if text == "none":
        return None
    return float(FiniteRange(0, min_open=True)(text, option, context))


_AXES: dict[str, tuple[Read, str]] = {
    "quant": (_one_of(*CODEC_NAMES), f"Codecs, of {', '.join(CODEC_NAMES)}. Default: all."),
    "dim": (_integer, "Dimensions of user rows. Rows are cut to smaller ones as by build --dim. Default: their own."),
    "sketch": (_switch, "Tables with a sketch: yes, no or both. Default: no,yes."),
    "cluster": (_switch, "Tables with clustered tiles: yes, no or both. Default: yes."),
    "refine": (_one_of(*REFINE_NAMES), f"Codecs of refinement rows, of {', '.join(REFINE_NAMES)}. Default: no."),
    "candidates": (_integer, "Candidates per user wanted that refinement rows rank again. Default: 4."),
    "exact": (_switch, "Exact searches (yes), statistical ones (no) or both. Default: yes,no."),
    "log_probs": (_one_of(*LOG_PROBS), f"Modes of the log-probabilities, of {', '.join(LOG_PROBS)}. Default: none."),
    "call_budget_ms": (_budget, "Budgets of a call in milliseconds; none for no limit. Default: none."),
    "batch": (_integer, "Items per call. Default: 1."),
    "engine": (_one_of(*ENGINES), f"Engines, of {', '.join(ENGINES)}. Default: native."),
    "threads": (_integer, "Threads of a call. Default: all CPUs that this process can use."),
}


def _values(read: Read, context: click.Context, option: click.Parameter, text: str | None) -> tuple[Any, ...] | None:
    """Return the values of a text in which commas separate them."""
    return None if text is None else tuple(read(part.strip(), option, context) for part in text.split(","))


def axis_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each axis of the grid."""
    for name, (read, use) in reversed(_AXES.items()):
        flag = "--" + name.replace("_", "-")
        command = click.option(flag, metavar="VALUES", callback=partial(_values, read), help=use)(command)
    return command


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--items",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="Item texts (see build --calibration), for a bundle or a checkpoint; or item vectors (see users create).",
)
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Output directory.")
@axis_options
@click.option("-k", "--k", type=click.IntRange(1), default=100, show_default=True, help="Users per item.")
@click.option("--queries", type=click.IntRange(1), default=100, show_default=True, help="Items that are asked at most.")
@click.option(
    "--seconds",
    type=FiniteRange(0),
    default=5.0,
    show_default=True,
    help="Time limit of a point's timed runs. Five runs are always made.",
)
@click.option(
    "--target-recall",
    type=FiniteRange(0, 1),
    help="Pick an operating point with at least this recall@K. Without one, the exit code is 3.",
)
@click.option(
    "--budget-ms",
    type=FiniteRange(0, min_open=True),
    help="Pick an operating point whose p99 per call is at most so many milliseconds.",
)
@click.option(
    "--peers",
    metavar="VALUES",
    callback=partial(_values, _one_of(*PEERS, "all")),
    help=f"Other libraries to measure too, of {', '.join(PEERS)}; or all. Those that are not installed are left out.",
)
@json_option
@pass_output
def sweep(
    output: Output,
    /,
    source: Path,
    items: Path,
    out: Path,
    k: int,
    queries: int,
    seconds: float,
    target_recall: float | None,
    budget_ms: float | None,
    peers: tuple[str, ...] | None,
    **axes: Any,
) -> None:
    """Measure recall, latency, throughput and bytes of many tables of SOURCE, and of many ways to search them.

    SOURCE is a checkpoint, a bundle, a user table, or a file of user vectors (.npy, .parquet, .safetensors, .fbin).
    The points are all combinations of the values of --quant to --threads, which are separated by commas.
    Recall is measured against the fp32 scores of all rows. The output directory gets sweep.jsonl, sweep.csv, sweep.svg
    (and sweep.png, with the extra `png`) and report.html. With --target-recall or --budget-ms, the cheapest point that
    satisfies both becomes operating_point.json, which `build` and Runtime.open take. An interrupted sweep continues
    after its last point.
    """
    from fllm_export.engines.probe import obstacles
    from fllm_export.environment import default_threads
    from fllm_export.sweep.choice import Requirement, choose
    from fllm_export.sweep.grid import Axes, Limits, make_grid
    from fllm_export.sweep.output import require, write
    from fllm_export.sweep.peer_points import peer_indexes
    from fllm_export.sweep.peers.catalogue import LIBRARIES
    from fllm_export.sweep.subject import open_subject
    from fllm_export.sweep.sweep import Settings
    from fllm_export.sweep.sweep import sweep as run
    from fllm_export.sweep.tabular import document

    threads = default_threads()
    subject = open_subject(source, items, queries, threads, output.progress)
    given = {name: values for name, values in axes.items() if values is not None}
    cut_dim = subject.cut_dim if any(dim < subject.dim for dim in given.get("dim", ())) else 0
    limits = Limits(subject.dim, cut_dim, len(subject.corpus.items), threads, obstacles())
    grid = make_grid(Axes(**given), limits)
    batches = [batch for batch in given.get("batch", (1,)) if batch <= limits.items]
    wanted = LIBRARIES if "all" in (peers or ()) else peers or ()
    indexes, missing = peer_indexes(wanted, len(subject.corpus.rows), given.get("threads", (threads,)), batches)
    grid.left_out |= missing
    swept = run(
        subject, grid, out, Settings(k, seconds), output.progress, lambda record: _tell(output, record), indexes
    )
    for reason, count in swept.left_out.items():
        output.say(f"{counted(count, 'combination')} left out: {reason}")
    choice = None
    if target_recall is not None or budget_ms is not None:
        choice = choose(swept.records, Requirement(target_recall or 0.0, budget_ms))
    write(swept, out, choice)
    # With --json, a failure is the only document.
    if choice is None or choice.satisfied or not output.json:
        output.result(document(swept, choice), _text(swept, out, choice))
    if choice is not None:
        require(choice, k)


def _tell(output: Output, record: Record) -> None:
    found = record.measured
    output.say(f"{record.point}: recall {found.recall:.4f}, {found.median_ms:.2f} ms")


def _text(swept: Sweep, out: Path, choice: Choice | None) -> str:
    from fllm_export.operating_point import FILE_NAME as OPERATING_POINT
    from fllm_export.sweep.fronts import fronts

    found, about = fronts(swept.records), swept.conditions
    rows = [_cells(record, found.latency[record.point] is None) for record in swept.records]
    header = ["point", f"recall@{about.k}", "ms", "95 %", "p99", "items/s", "bytes", "build s", "front"]
    facts = about.subject
    lines = [
        f"{counted(facts['rows'], 'row')} x {facts['dim']} of {facts['source']}, {counted(facts['items'], 'item')}; "
        f"recall against {facts['reference']}; rows are stored as by `{facts['stored_as']}`",
        f"{counted(len(swept.records), 'point')} in {out}" + _reused(swept),
    ]
    if swept.foreign:
        lines.append(f"not used, as of another machine, version or input: {counted(swept.foreign, 'line')}")
    if choice is not None and choice.satisfied:
        lines.append(f"operating point: {choice.record.point}, in {out / OPERATING_POINT}")
        if choice.record.axes["log_probs"] == "none":
            lines.append("It was measured without log-probabilities, so searches by it return none. See --log-probs.")
    return "\n".join([*lines, "", columns(header, rows)])


def _reused(swept: Sweep) -> str:
    return f"; {swept.reused:,} of them from an earlier run" if swept.reused else ""


def _cells(record: Record, on_front: bool) -> list[str]:
    found = record.measured
    return [
        record.point,
        f"{found.recall:.4f}",
        f"{found.median_ms:.2f}",
        f"{found.median_low_ms:.2f}-{found.median_high_ms:.2f}",
        f"{found.p99_ms:.2f}",
        f"{found.items_per_s:,.0f}",
        f"{found.bytes_per_user:.1f}",
        f"{found.build_s:.1f}",
        "*" if on_front else "",
    ]
