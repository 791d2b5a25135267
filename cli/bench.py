"""``fllm-export bench``: how long answers take here, and which stage takes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fllm_export.cli.asked import open_asked
from fllm_export.cli.options import (
    DIRECTORY,
    encoder_option,
    engine_option,
    exact_option,
    log_probs_option,
    operating_point_option,
    refine_option,
    threads_option,
    typed,
)
from fllm_export.cli.output import Output, columns, json_option, pass_output
from fllm_export.counted import counted

if TYPE_CHECKING:
    from fllm_export.engines.names import LogProbs
    from fllm_export.planning.load import Load
    from fllm_export.runtime.latency import Latency


@click.command()
@click.argument("source", type=DIRECTORY)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    required=True,
    help="Item texts (see build --calibration); for a table, item vectors (see users create).",
)
@click.option(
    "-k",
    "--k",
    type=int,
    default=100,
    show_default=True,
    help="Users per item.",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 8),
    show_default=True,
    help="Items per call. With --operating-point, those of the point where none are typed.",
)
@click.option("--repeats", type=click.IntRange(1), default=30, show_default=True, help="Measured calls per batch size.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the times and a chart to this HTML file.",
)
@exact_option
@log_probs_option
@refine_option
@operating_point_option
@engine_option
@encoder_option
@threads_option
@json_option
@pass_output
def bench(
    output: Output,
    source: Path,
    file: Path,
    k: int,
    batches: tuple[int, ...],
    repeats: int,
    report: Path | None,
    exact: bool | None,
    log_probs: LogProbs | None,
    refine: int | None,
    operating_point: Path | None,
    engine: str | None,
    encoder: str | None,
    threads: int | None,
) -> None:
    """Measure the latency of SOURCE per stage, and compare it with a plain fp32 scan of the same rows.

    SOURCE is a bundle or a user table. `--file` holds item texts for a bundle, and item vectors for a table. This
    command does not measure recall: `build` does, and exact answers lose none. It prints the load of the machine
    before, and says so where the machine was busy.
    """
    from fllm_export.planning.load import Load
    from fllm_export.runtime.latency import measure_latency

    load = Load.now()
    asked = open_asked(
        source, (), file, engine=engine, encoder=encoder, threads=threads, operating_point=operating_point
    )
    if asked.point is not None:
        batches = typed("batches", batches) or (asked.point.batch,)
    call: dict[str, Any] = {"exact": exact, "log_probs": log_probs, "refine": refine, "budget_ms": asked.budget_ms}
    results = [
        measure_latency(asked.answers, asked.items, batch=batch, k=k, repeats=repeats, progress=output.progress, **call)
        for batch in batches
    ]
    chosen = asked.users.request(1, k, None, "topk", 0, 0.0, exact, log_probs, refine=refine)
    facts = {
        "users": len(asked.users),
        "dim": asked.users.dim,
        "engine": asked.users.engine,
        "encoder": asked.encoder,
        "exact": chosen.exact,
        "log_probs": chosen.log_probs,
        "refine": chosen.refine,
    }
    if report is not None:
        given = {"users per item": k, "threads": threads or "as many as CPUs", "load before": _load_text(load)}
        _write_page(report, source, {**facts, **given}, results)
    kind = "exact" if chosen.exact else "not necessarily exact"
    again = f", {chosen.refine} x {k} candidates ranked again" if chosen.refine else ""
    output.result(
        {**facts, **load.to_dict(), "results": [result.to_dict() for result in results]},
        f"{counted(len(asked.users), 'user')} x {facts['dim']}, engine {facts['engine']}, "
        f"encoder {facts['encoder'] or 'none'}; {kind} top-{k}{again}, log-probabilities: {chosen.log_probs}; "
        f"milliseconds, median of {counted(repeats, 'call')} (p99)\n\n"
        f"{_table(results)}\n\n" + "\n".join([*map(_remark, results), f"before: {_load_text(load)}"]),
    )


def _load_text(load: Load) -> str:
    busy = "; the machine was busy, so times are longer than on a quiet machine" if load.busy else ""
    return f"{load.told()}{busy}"


def _write_page(report: Path, source: Path, facts: Mapping[str, object], results: list[Latency]) -> None:
    from fllm_export.files import publish_text
    from fllm_export.runtime.latency_page import latency_page

    setting = {name.replace("_", "-"): _words(value) for name, value in facts.items()}
    publish_text(report, latency_page(f"Latency of {source.resolve().name}", setting, results))


def _words(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "not necessarily"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(results: list[Latency]) -> str:
    stages = list(results[0].stages)
    rows = []
    for result in results:
        plain = "-" if result.yardstick is None else f"{result.yardstick.median:.2f}"
        cells = [f"{result.stages[stage].median:.2f}" for stage in stages]
        rows.append([str(result.batch), *cells, f"{result.total.median:.2f} ({result.total.p99:.2f})", plain])
    return columns(["batch", *stages, "total", "plain fp32 scan"], rows)


def _remark(result: Latency) -> str:
    stage = max(result.stages, key=lambda name: result.stages[name].median)
    share = result.stages[stage].median / result.total.median
    text = f"batch {result.batch}: {stage} takes {share:.0%}; the first call took {result.first_ms:.1f} ms"
    scan = result.stages["scan"].median + result.stages["merge"].median
    if result.yardstick is not None:
        ratio = result.yardstick.median / scan
        speed = f"{ratio:.2f} x as fast as" if ratio >= 1 else f"{1 / ratio:.2f} x slower than"
        text += f"; scan and merge are {speed} the plain fp32 scan"
    return text
