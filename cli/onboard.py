"""``fllm-export onboard``: vectors of new items for a recommender that is trained already."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fllm_export.cli.finite_range import FiniteRange
from fllm_export.cli.options import DIRECTORY, encoder_for, encoder_option, engine_option, threads_option
from fllm_export.cli.output import Output, json_option, pass_output
from fllm_export.coldstart.onboard_options import METHODS, WEIGHTS, OnboardOptions
from fllm_export.counted import counted
from fllm_export.engines.names import MODES

if TYPE_CHECKING:
    from fllm_export.coldstart.item_stream import Counts
    from fllm_export.runtime.runtime import Runtime
    from fllm_export.runtime.user_table import UserTable

_FILE = click.Path(dir_okay=False, path_type=Path)

_DEFAULTS = {field.name: field.default for field in fields(OnboardOptions)}
_CHOICES = (
    click.option("-k", "--k", type=click.IntRange(1), default=_DEFAULTS["k"], show_default=True,
                 help="Pseudo-users per item."),
    click.option("--mode", type=click.Choice(MODES), default=_DEFAULTS["mode"], show_default=True,
                 help="The K most probable users, or K users sampled from the distribution without replacement."),
    click.option("--weights", type=click.Choice(WEIGHTS), default=_DEFAULTS["weights"], show_default=True,
                 help="Whether pseudo-users count by their probability or equally."),
    click.option("--half-at", type=float, default=_DEFAULTS["half_at"], show_default=True,
                 help="Number of real interactions of an item at which its pseudo-users have half of their weight."),
    click.option("--method", type=click.Choice(METHODS), default=_DEFAULTS["method"], show_default=True,
                 help="How a vector follows from users: least squares with a prior, BPR steps, or LightGCN's "
                 "propagation."),
    click.option("--background", type=float, default=_DEFAULTS["background"], show_default=True,
                 help="Number of average users that pull an item to the mean item (ridge, bpr)."),
    click.option("--penalty", type=float, default=_DEFAULTS["penalty"], show_default=True,
                 help="Pull to the mean item in all directions (ridge, bpr)."),
    click.option("--steps", type=click.IntRange(1), default=_DEFAULTS["steps"], show_default=True,
                 help="Steps of bpr."),
    click.option("--negatives", type=click.IntRange(1), default=_DEFAULTS["negatives"], show_default=True,
                 help="Items that bpr compares with."),
    click.option("--seed", type=int, default=_DEFAULTS["seed"], show_default=True,
                 help="Seed of sampling, and of the items that are drawn for calibration."),
)  # fmt: skip


def _choices(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of onboarding, collected in one argument ``options``."""

    @functools.wraps(command)
    def collected(**arguments: Any) -> Any:
        chosen = {name: arguments.pop(name) for name in _DEFAULTS}
        return command(options=OnboardOptions(**chosen), **arguments)

    wrapped: Callable[..., Any] = collected
    for option in reversed(_CHOICES):
        wrapped = option(wrapped)
    return wrapped


@click.command()
@click.argument("source", type=DIRECTORY)
@click.argument("items", type=_FILE)
@click.option(
    "--recommender",
    type=_FILE,
    required=True,
    help="Trained vectors: a safetensors file with the tensors user_ids, users, item_ids and items.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Output directory.")
@click.option(
    "--index",
    type=_FILE,
    help="Also push the vectors into this index of the recommender's items: .faiss, .usearch or .safetensors (exact). "
    "It is made if it does not exist.",
)
@_choices
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Most items per batch.")
@click.option("--follow", is_flag=True, help="Wait for more items at the end of the file.")
@click.option("--idle-seconds", type=FiniteRange(0), help="With --follow: end after this time without new items.")
@click.option("--max-items", type=click.IntRange(1), help="End after reading this many records.")
@engine_option
@encoder_option
@threads_option
@json_option
@pass_output
def onboard(
    output: Output,
    source: Path,
    items: Path,
    recommender: Path,
    out: Path,
    index: Path | None,
    options: OnboardOptions,
    batch: int,
    follow: bool,
    idle_seconds: float | None,
    max_items: int | None,
    engine: str | None,
    encoder: str | None,
    threads: int | None,
) -> None:
    """Give new ITEMS vectors of a trained recommender, by the users whom SOURCE finds for them.

    SOURCE is a bundle, or a user table. ITEMS is a file of JSON lines or Parquet: `item_id`, `text` (for a user table:
    `vector`), and maybe `users`, the ids of users who interacted with the item so far. Of the recommender nothing
    changes but the vectors of these items.

    The output is Parquet. If you run the command again, it continues where it stopped, and does nothing twice: a
    record counts only if its item is new or has changed.
    """
    from fllm_export.coldstart.item_stream import StreamEnd

    if idle_seconds is not None and not follow:
        raise click.UsageError("--idle-seconds needs --follow")
    opened = _opened(source, engine, encoder, threads)
    counts = _run(
        output, opened, items, recommender, out, index, options, batch, StreamEnd(follow, idle_seconds, max_items)
    )
    if counts.restarted:
        output.say(f"{items} is not the file that was read before: it was read from its beginning")
    if counts.unknown_users:
        output.say(
            f"{counts.unknown_users:,} users of the user table are not in {recommender}: they cannot be pseudo-users"
        )
    names = {"out": str(out), "index": None if index is None else str(index)}
    output.result({**names, **asdict(counts)}, _text(counts, out))


def _opened(source: Path, engine: str | None, encoder: str | None, threads: int | None) -> Runtime | UserTable:
    from fllm_export.directory_kinds import BUNDLE, USER_TABLE, check_kind

    encoder = encoder_for(source, encoder)
    if USER_TABLE.found_at(source):
        from fllm_export.runtime.user_table import UserTable

        return UserTable.open(source, engine=engine, threads=threads)
    check_kind(source, BUNDLE, USER_TABLE)
    from fllm_export.runtime.runtime import Runtime

    return Runtime.open(source, engine=engine, encoder=encoder, threads=threads)


def _run(
    output: Output,
    opened: Runtime | UserTable,
    items: Path,
    recommender: Path,
    out: Path,
    index: Path | None,
    options: OnboardOptions,
    batch: int,
    end: Any,
) -> Counts:
    from fllm_export.coldstart.item_index import open_index
    from fllm_export.coldstart.item_stream import IndexFile, ItemStream
    from fllm_export.coldstart.new_items import open_items
    from fllm_export.coldstart.onboard_journal import OnboardJournal
    from fllm_export.coldstart.onboarding import Onboarder
    from fllm_export.coldstart.vectors import Vectors
    from fllm_export.files import sha256_file

    vectors = Vectors.load(recommender)
    onboarder = Onboarder(opened, vectors, options)
    records = open_items(items, "text") if onboarder.takes_texts else open_items(items, "vector", onboarder.dim)
    sha256 = sha256_file(recommender)
    conditions = {"recommender": sha256, "encoder": onboarder.encoder_sha256, **options.to_json()}
    with OnboardJournal(out, conditions) as journal:
        into = None
        if index is not None:
            into = IndexFile(open_index(index, vectors.item_ids, vectors.items), index, out, sha256)
        return ItemStream(onboarder, records, journal, into, batch).run(end, output.progress, output.say)


def _text(counts: Counts, out: Path) -> str:
    done = f"{counted(counts.onboarded, 'vector')} written, {counted(counts.unchanged, 'record')} unchanged"
    lines = [f"{out}: {done if counts.read else 'there is no new record'}"]
    if counts.onboarded:
        each = ", ".join(f"{stage} {ms / counts.onboarded:.2f} ms" for stage, ms in counts.stages_ms.items())
        lines.append(f"per item: {each}")
    return "\n".join(lines)
