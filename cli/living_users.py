"""``fllm-export users append|update|delete|learn|compact|list``: tables that change while they are served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fllm_export.cli.options import DIRECTORY
from fllm_export.cli.output import Output, byte_text, columns, json_option, pass_output
from fllm_export.counted import counted

if TYPE_CHECKING:
    from fllm_export.table.living import Chunk, TableChange

_FILE = click.Path(path_type=Path)

_if_generation = click.option(
    "--if-generation", type=click.IntRange(min=1), help="Refuse unless the table is of this generation."
)


def _rows(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the table, the files of rows and their ids to a command."""
    for decorate in (
        json_option,
        _if_generation,
        click.option(
            "--ids",
            type=_FILE,
            help="User ids: .npy of integers, or .parquet, .csv, .tsv or .jsonl with a column `user_id` "
            "(default: those in VECTORS).",
        ),
        click.argument("vectors", nargs=-1, required=True, type=_FILE),
        click.argument("table", type=DIRECTORY),
    ):
        command = decorate(command)
    return command


@click.command()
@_rows
@pass_output
def append(output: Output, table: Path, vectors: tuple[Path, ...], ids: Path | None, if_generation: int | None) -> None:
    """Add the users of VECTORS, which TABLE does not have, in one step.

    TABLE is a user table or a bundle. VECTORS are files as `users create` reads them; rows of a bundle are given as
    training makes them. When the command has ended, the users are on disk, and readers that reopen see them.
    """
    _put(output, table, vectors, ids, if_generation, "append")


@click.command()
@_rows
@pass_output
def update(output: Output, table: Path, vectors: tuple[Path, ...], ids: Path | None, if_generation: int | None) -> None:
    """Replace the rows of the users of VECTORS, which TABLE has, in one step. Otherwise as `users append`."""
    _put(output, table, vectors, ids, if_generation, "update")


@click.command()
@click.argument("table", type=DIRECTORY)
@click.argument("user_ids", nargs=-1, type=click.IntRange(min=0))
@click.option("--ids", type=_FILE, help="More user ids: a file as for `users append`.")
@_if_generation
@json_option
@pass_output
def delete(output: Output, table: Path, user_ids: tuple[int, ...], ids: Path | None, if_generation: int | None) -> None:
    """Remove users from TABLE, a user table or a bundle, in one step.

    They are never returned again. Their rows stay in the files until `users compact`, twice: the files of the
    generation before are kept.
    """
    from fllm_export.checkpoint.vector_files import read_ids
    from fllm_export.errors import UsageError
    from fllm_export.runtime.table_writer import open_writer

    if not user_ids and ids is None:
        raise UsageError("no users were named", expected="user ids, or --ids FILE")
    named = [*user_ids, *([] if ids is None else read_ids(ids).tolist())]
    _tell(output, table, open_writer(table).delete(named, if_generation=if_generation))


@click.command()
@click.argument("table", type=DIRECTORY)
@click.argument("interactions", type=_FILE)
@click.option(
    "--withdraw", is_flag=True, help="Withdraw the interactions: the rows are then as if they had never been."
)
@click.option("--split", help="Only interactions whose column `split` holds this.")
@_if_generation
@json_option
@pass_output
def learn(
    output: Output, table: Path, interactions: Path, withdraw: bool, split: str | None, if_generation: int | None
) -> None:
    """Learn INTERACTIONS without training: add new users to TABLE, a bundle, and give others their new rows.

    INTERACTIONS is a file with the columns `user_id` and `item_id` (.parquet, .csv, .tsv or .jsonl), of items that the
    model was trained on. Rows are made of all items of a user, those before included: in closed form exactly as
    training makes them, of a head so that these items are most likely. An interaction counts once, so the command can
    be repeated. It needs a bundle of a checkpoint from `train` with `--vocabulary closed_form`, the default.
    """
    import numpy as np

    from fllm_export import arguments
    from fllm_export.pair_files import PairFile
    from fllm_export.runtime.table_writer import open_learner, open_writer
    from fllm_export.table.learning import Pairs

    source, rule, writer = PairFile(interactions, split), open_learner(table), open_writer(table)
    none = np.zeros(0, np.int64), np.zeros(0, np.int32)
    parts = [none, *((users, rule.positions(items)) for users, items in source.batches())]
    users, items = (np.concatenate(column) for column in zip(*parts, strict=True))
    change = writer.learn(
        Pairs.of(arguments.ids(users, "user_id"), items),
        rule,
        withdraw=withdraw,
        if_generation=if_generation,
        progress=output.progress,
    )
    verb = "withdrawn" if withdraw else "learned"
    more = f"{counted(change.interactions, 'interaction')} {verb}, {change.without_effect:,} without effect"
    _tell(output, table, change, more)


@click.command()
@click.argument("table", type=DIRECTORY)
@json_option
@pass_output
def compact(output: Output, table: Path) -> None:
    """Rewrite TABLE without rows of deleted users and with full shards, while readers go on."""
    from fllm_export.runtime.table_writer import open_writer

    _tell(output, table, open_writer(table).compact(output.progress))


@click.command("list")
@click.argument("table", type=DIRECTORY)
@json_option
@pass_output
def list_(output: Output, table: Path) -> None:
    """List the shards of TABLE, a user table or a bundle, in scan order, with their rows and deleted rows."""
    from fllm_export.runtime.places import table_of
    from fllm_export.table.table import Table

    opened = Table(table_of(table))
    layout, first = opened.layout, 0
    shards: list[dict[str, Any]] = []
    size = sum(file.bytes for file in layout.files)
    for entry in layout.shards:
        live = opened.tombstones.live(first, first + entry.rows)
        deleted = 0 if live is None else int(entry.rows - live.sum())
        shards.append({"name": entry.name, "rows": entry.rows, "deleted_rows": deleted, "bytes": entry.bytes})
        first += entry.rows
    facts = {
        "table": str(table),
        "generation": layout.generation,
        "users": layout.rows,
        "deleted_rows": layout.stored_rows - layout.rows,
        "bytes": size,
        "shards": shards,
    }
    text = f"{table}: generation {layout.generation}, {counted(layout.rows, 'user')}, {byte_text(size)}"
    cells = [[s["name"], f"{s['rows']:,}", f"{s['deleted_rows']:,}", byte_text(s["bytes"])] for s in shards]
    output.result(facts, f"{text}\n\n{columns(['shard', 'rows', 'deleted', 'size'], cells)}")


def _put(
    output: Output, table: Path, vectors: tuple[Path, ...], ids: Path | None, if_generation: int | None, verb: str
) -> None:
    from fllm_export.checkpoint.vector_files import open_vectors
    from fllm_export.errors import UsageError
    from fllm_export.runtime.table_writer import open_writer

    rows = open_vectors(vectors, ids)
    if ids is None and rows.ids is None:
        raise UsageError("VECTORS hold no user ids", expected="a file of ids", fix="Pass --ids FILE")

    def chunks() -> Iterator[Chunk]:
        for numbers, part, bias in rows.labelled_chunks():
            yield part, numbers, bias

    change = getattr(open_writer(table), verb)
    _tell(output, table, change(chunks(), if_generation=if_generation, progress=output.progress))


def _tell(output: Output, table: Path, change: TableChange, more: str = "") -> None:
    facts = asdict(change)
    counts = [f"{facts[name]:,} {name}" for name in ("appended", "updated", "deleted") if facts[name]]
    done = ", ".join([*counts, more] if more else counts)
    text = f"{table}: generation {change.generation}, {counted(change.users, 'user')}"
    output.result({"table": str(table), **facts}, f"{text}, {done}" if done else text)
