"""``fllm-export users``: tables of users that no model made, and changes to any user table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from fllm_export.cli.living_users import append, compact, delete, learn, list_, update
from fllm_export.cli.options import named_options, operating_point_option, table_options
from fllm_export.cli.output import Output, byte_text, json_option, pass_output
from fllm_export.counted import counted

if TYPE_CHECKING:
    from fllm_export.table.codec_names import CodecName
    from fllm_export.table.options import TableOptions


@click.group()
def users() -> None:
    """Make user tables from vectors, and change the users of a table that is served."""


@users.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("vectors", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--ids",
    type=click.Path(path_type=Path),
    help="User ids: .npy of integers, or .parquet, .csv, .tsv or .jsonl with a column `user_id` "
    "(default: those in VECTORS, otherwise 0, 1, 2, ...).",
)
@table_options
@operating_point_option
@json_option
@pass_output
def create(
    output: Output,
    out: Path,
    vectors: tuple[Path, ...],
    ids: Path | None,
    table: TableOptions,
    operating_point: Path | None,
) -> None:
    """Write the user table OUT, a new directory, from VECTORS, one vector per user.

    Formats: .npy (floats [n, d]), .parquet (a column of lists of floats, and optionally `user_id`), .safetensors (a
    matrix, and optionally `ids` and `bias`) or .fbin (big-ann). Files are read one after the other, in chunks.
    `query` and `bench` search the table, `inspect` describes it.
    """
    from fllm_export.checkpoint.vector_files import open_vectors
    from fllm_export.table.writer import TableWriter, write_table

    rows = open_vectors(vectors, ids)
    table = _chosen(table, operating_point, rows.dim)
    if operating_point is not None and _rounded_otherwise(operating_point):
        output.say(
            f"{operating_point} was measured on {table.quant} rows that were rounded by data, as `build` stores them. "
            "Rows are rounded to the nearest here, so recall is lower. To keep it, build a bundle."
        )
    writer = TableWriter(out, table, dim=rows.dim, bias=rows.bias is not None)
    chunks = ((part, numbers, bias) for numbers, part, bias in rows.labelled_chunks())
    try:
        layout = write_table(writer, chunks, rows.rows, output.progress)
    except BaseException:
        writer.discard()  # the same files may hold other rows next time
        raise
    size = sum(file.bytes for file in layout.files)
    facts = {
        "table": str(out),
        "users": layout.rows,
        "dim": layout.dim,
        "codec": layout.codec,
        "bytes": size,
        "shards": len(layout.shards),
        "sketch_dims": layout.sketch_dims,
        "clustered": layout.tile_bounds,
        "refinement": None if layout.refinement is None else layout.refinement.codec,
    }
    finer = "" if layout.refinement is None else f" with {layout.refinement.codec} refinement"
    shape = f"{counted(layout.rows, 'user')} x {layout.dim}, {layout.codec}{finer}"
    output.result(facts, f"{out}: {shape}, {byte_text(size)}")


def _chosen(table: TableOptions, operating_point: Path | None, dim: int) -> TableOptions:
    """Return the options of the table; with an operating point, those that it sets."""
    from fllm_export.bundle.chosen_table import chosen_table
    from fllm_export.errors import UsageError

    chosen, cut = chosen_table(operating_point, dim, None, named_options(table, typed_only=operating_point is not None))
    if cut is not None:
        raise UsageError(
            f"{operating_point} has rows of dimension {cut}, and VECTORS have {dim}",
            expected="the same dimension: only `build`, which has item texts to choose directions by, cuts rows",
            fix="Sweep without --dim, or build a bundle of a checkpoint",
        )
    return chosen


def _rounded_otherwise(operating_point: Path) -> bool:
    from fllm_export.calibration.row_form import gains_by_data
    from fllm_export.operating_point import OperatingPoint

    point = OperatingPoint.load(operating_point)
    return point.stored_as == "build" and gains_by_data(cast("CodecName", point.quant), cut=False)


for _verb in (append, update, delete, learn, compact, list_):
    users.add_command(_verb)
