"""``fllm-export build``: a checkpoint goes in, a bundle comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fllm_export.cli.options import DIRECTORY, named_options, table_options, threads_option
from fllm_export.cli.output import Output, byte_text, columns, json_option, pass_output
from fllm_export.counted import counted
from fllm_export.encoder_precisions import ENCODER_PRECISIONS, EncoderPrecision
from fllm_export.errors import ParityError

if TYPE_CHECKING:
    from fllm_export.bundle.bundle import Bundle
    from fllm_export.bundle.choices import Dim, RoundingName
    from fllm_export.bundle.estimate import Estimate
    from fllm_export.bundle.wanted_size import BytesPerUser
    from fllm_export.table.options import TableOptions


def _number(what: str) -> Callable[[click.Context, click.Parameter, str | None], int | str | None]:
    """Return what reads a number of something, or ``auto``."""

    def read(_: click.Context, __: click.Parameter, value: str | None) -> int | str | None:
        if value is None or value == "auto":
            return value
        try:
            return int(value)
        except ValueError as error:
            found = f"{value!r} is not a number of {what}; expected an integer of 1 or more, or auto"
            raise click.BadParameter(found) from error

    return read


@click.command()
@click.argument("checkpoint", type=DIRECTORY)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Directory of the new bundle.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    required=True,
    help="Real item texts (.parquet, .csv, .tsv, .jsonl with a column `text`, or .txt); parity is measured on them.",
)
@click.option(
    "--min-recall",
    type=float,
    default=0.99,
    show_default=True,
    help="Minimum recall@K against the fp32 checkpoint. Below it, nothing is published and the exit code is 3.",
)
@click.option("-k", "--k", type=int, default=100, show_default=True, help="K of the recall of --min-recall.")
@click.option(
    "--dim",
    metavar="N|auto",
    callback=_number("dimensions"),
    help="Cut rows and item vectors to N dimensions, along the directions that matter most for the calibration texts. "
    "auto: the smallest N that loses at most half of what --min-recall allows. At least as many texts as dimensions "
    "are needed beyond the 256 of parity.",
)
@click.option(
    "--bytes-per-user",
    metavar="N|auto",
    callback=_number("bytes"),
    help="Search the codec, dimension and rounding with the highest recall@K on calibration texts among those whose "
    "table takes at most N bytes per user, everything counted. auto: the smallest that has --min-recall. --quant, "
    "--dim N and --rounding restrict the search.",
)
@click.option(
    "--encoder-precision",
    type=click.Choice(ENCODER_PRECISIONS),
    default="fp32",
    show_default=True,
    help="Precision of the encoder's weights on CPUs. Recall is measured with it.",
)
@click.option(
    "--rounding",
    type=click.Choice(["auto", "nearest", "data"]),
    default="auto",
    show_default=True,
    help="How rows become codes. data: so that the scores of the calibration texts change least. auto: data for int4, "
    "int4row, int2 and int1, and with --dim, if there are as many texts beyond those of parity as dimensions.",
)
@click.option(
    "--exporter",
    type=click.Choice(["torch", "optimum"]),
    default="torch",
    show_default=True,
    help="What exports the encoder to ONNX.",
)
@table_options
@click.option(
    "--operating-point",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What sweep picked: sets --quant, --dim, --sketch, --cluster and --refine.",
)
@threads_option
@click.option("--dry-run", is_flag=True, help="Print files, bytes, memory and time, and build nothing.")
@json_option
@pass_output
def build(
    output: Output,
    checkpoint: Path,
    out: Path,
    calibration: Path,
    min_recall: float,
    k: int,
    dim: Dim | None,
    bytes_per_user: BytesPerUser | None,
    encoder_precision: EncoderPrecision,
    rounding: RoundingName,
    exporter: Literal["torch", "optimum"],
    table: TableOptions,
    operating_point: Path | None,
    threads: int | None,
    dry_run: bool,
) -> None:
    """Build a bundle from CHECKPOINT.

    The build merges the adapter, exports the encoder to ONNX, quantises the user rows into a table, and compares the
    rankings of the bundle with those of the checkpoint. An interrupted build continues where it stopped. A finished
    build with the same inputs is not repeated. `fllm-export plan` adds TensorRT plans to the bundle.
    """
    from fllm_export.bundle.chosen_table import chosen_table
    from fllm_export.bundle.estimate import estimate
    from fllm_export.bundle.job import Job, Options
    from fllm_export.bundle.pipeline import check_output, run
    from fllm_export.bundle.wanted_size import WantedSize
    from fllm_export.checkpoint.checkpoint import Checkpoint
    from fllm_export.environment import thread_count

    check_output(out)
    loaded = Checkpoint.load(checkpoint)
    named = named_options(table, typed_only=operating_point is not None or bytes_per_user is not None)
    table, dim = chosen_table(operating_point, loaded.users.dim, dim, named)
    size = WantedSize.of(bytes_per_user, named.get("quant"), operating_point=operating_point is not None)
    options = Options(table, min_recall, k, exporter, thread_count(threads), dim, encoder_precision, rounding, size)
    job = Job.prepare(loaded, calibration, options, output.progress)
    if dry_run:
        forecast = estimate(job, out)
        output.result({"dry_run": True, **forecast.to_dict()}, _forecast_text(forecast))
        forecast.check(out)
        return
    before = _written_at(out)
    try:
        bundle = run(job, out)
    except ParityError:
        if size is not None:
            _tell_tried(output, out)
        raise
    if before is not None:
        same = _written_at(out) == before
        output.say("up to date: nothing was built" if same else f"replaced the bundle that was at {out}")
    parity = bundle.parity()
    result = {"bundle": str(bundle.path), "users": bundle.table().layout.rows, "parity": parity.to_dict()}
    searched = bundle.size_search()
    if searched is not None:
        result["bytes_per_user"] = searched
    output.result(result, _bundle_text(bundle))


def _tell_tried(output: Output, out: Path) -> None:
    """Print the forms that a search for a size measured in vain."""
    from fllm_export.bundle.pipeline import searched_forms
    from fllm_export.bundle.size_facts import TRIED_HEADER, tried_rows

    report = searched_forms(out)
    if report is not None:
        table = columns([name.format(k=report["k"]) for name in TRIED_HEADER], tried_rows(report), left=0)
        output.failing("bytes_per_user", report, f"Forms of rows that were measured\n{table}\n")


def _written_at(bundle: Path) -> int | None:
    manifest = bundle / "manifest.json"
    return manifest.stat().st_mtime_ns if manifest.is_file() else None


def _forecast_text(forecast: Estimate) -> str:
    rows = [[name, byte_text(file.value), file.arithmetic] for name, file in forecast.files.items()]
    rows.append(["disk", byte_text(forecast.disk.value), forecast.disk.arithmetic])
    rows.append(["peak memory", byte_text(forecast.memory.value), forecast.memory.arithmetic])
    rows.append(["time", f"{forecast.time.value:.0f} s", forecast.time.arithmetic])
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:<{width}}  {amount:>9}  {arithmetic}" for name, amount, arithmetic in rows)


def _bundle_text(bundle: Bundle) -> str:
    from fllm_export.bundle.encoder_facts import encoder_cost
    from fllm_export.bundle.learning import interaction_facts

    layout, parity = bundle.table().layout, bundle.parity()
    cost = encoder_cost(bundle)
    size = sum(entry.bytes for entry in bundle.files().values())
    kept = "".join(f"{name}: {fact}\n" for name, fact in interaction_facts(layout).items())
    recall = columns(["K", "recall@K"], [[str(depth), f"{value:.4f}"] for depth, value in parity.recall.items()])
    return (
        f"{bundle.path}: {counted(layout.rows, 'user')} x {layout.dim}, {layout.codec}, {byte_text(size)}\n"
        f"{kept}\n"
        f"{_search_text(bundle)}"
        f"Parity with the fp32 checkpoint on {counted(parity.texts, 'item text')}\n{recall}\n"
        f"score error {parity.score_error_rms:.2e} rms, {parity.score_error_max:.2e} at most "
        f"(standard deviation of the scores: {parity.score_spread:.2e})" + (f"\n{cost}" if cost else "")
    )


def _search_text(bundle: Bundle) -> str:
    """Return the front that the search for a size walked, and what it chose."""
    from fllm_export.bundle.size_facts import HEADER, front_rows, size_facts

    report = bundle.size_search()
    if report is None:
        return ""
    table = columns([name.format(k=report["k"]) for name in HEADER], front_rows(report))
    facts = "\n".join(f"{name}: {value}" for name, value in size_facts(report).items())
    return f"Forms of rows, the smallest of each recall\n{table}\n{facts}\n\n"
