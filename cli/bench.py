"""``fllm-export bench``: how long answers take here, and which stage takes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fllm_export.cli.options import DIRECTORY, encoder_option, engine_option, threads_option
from fllm_export.cli.output import Output, columns, json_option, pass_output

if TYPE_CHECKING:
    from fllm_export.runtime.latency import Latency


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.option(
    "--file", type=click.Path(path_type=Path), required=True, help="Item texts to ask (see build --calibration)."
)
@click.option("-k", "--k", type=int, default=100, show_default=True, help="Users an item.")
@click.option(
    "--batch", "batches", type=click.IntRange(1), multiple=True, default=(1, 8), show_default=True, help="Items a call."
)
@click.option("--repeats", type=click.IntRange(1), default=30, show_default=True, help="Measured calls a batch size.")
@engine_option
@encoder_option
@threads_option
@json_option
@pass_output
def bench(
    output: Output,
    bundle: Path,
    file: Path,
    k: int,
    batches: tuple[int, ...],
    repeats: int,
    engine: str | None,
    encoder: str | None,
    threads: int | None,
) -> None:
    """Measure the latency of BUNDLE, stage by stage, beside a plain fp32 scan of the same rows."""
    from fllm_export.item_texts import ItemTexts
    from fllm_export.runtime.latency import measure_latency
    from fllm_export.runtime.runtime import Runtime

    runtime = Runtime.open(bundle, engine=engine, encoder=encoder, threads=threads)
    texts = ItemTexts.load(file).texts
    results = [
        measure_latency(runtime, texts, batch=batch, k=k, repeats=repeats, progress=output.progress)
        for batch in batches
    ]
    facts = {
        "users": len(runtime.users),
        "dim": runtime.users.dim,
        "engine": runtime.users.engine,
        "encoder": runtime.encoder,
    }
    output.result(
        {**facts, "results": [result.to_dict() for result in results]},
        f"{facts['users']:,} users x {facts['dim']}, engine {facts['engine']}, encoder {facts['encoder']}, top-{k}; "
        f"milliseconds, median of {repeats} calls (p99)\n\n{_table(results)}\n\n" + "\n".join(map(_remark, results)),
    )


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
        speed = f"{ratio:.2f} x as fast as" if ratio >= 1 else f"{1 / ratio:.2f} x SLOWER than"
        text += f"; scan and merge are {speed} the plain fp32 scan"
    return text
