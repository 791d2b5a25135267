"""Arguments and options that several verbs share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

from fllm_export.directory_kinds import USER_TABLE
from fllm_export.engines.names import ENCODERS, LOG_PROBS, MODES
from fllm_export.engines.registry import ENGINES
from fllm_export.errors import UsageError
from fllm_export.table.options import TableOptions

if TYPE_CHECKING:
    from fllm_export.table.options import TableChoices

Value = TypeVar("Value")

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SHARD_BYTES_LEAST = 4096
"""A page: every tensor of a shard begins on one."""


def _bytes(_: click.Context, __: click.Parameter, value: str) -> int:
    """Return a number of bytes: an integer, or one followed by K, M or G for 2^10, 2^20 or 2^30 bytes."""
    found = re.fullmatch(r"([0-9]{1,18})([KMG]?)", value, re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a number of bytes; expected an integer, or one with K, M or G")
    number = int(found[1]) * _UNITS.get(found[2].upper(), 1)
    if number < _SHARD_BYTES_LEAST:
        raise click.BadParameter(f"{value!r} is {number:,} bytes; expected at least {_SHARD_BYTES_LEAST:,}")
    return number


def _byte_text(number: int) -> str:
    """Return a number of bytes as it can be typed, in the largest unit that divides it."""
    fitting = [(size, unit) for unit, size in _UNITS.items() if number % size == 0]
    size, unit = max(fitting, default=(1, ""))
    return f"{number // size}{unit}"


DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
"""A directory that is there."""

threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    envvar="FLLM_NUM_THREADS",
    show_envvar=True,
    help="Number of threads (default: the CPUs that this process can use).",
)

engine_option = click.option(
    "--engine",
    type=click.Choice(tuple(ENGINES)),
    envvar="FLLM_ENGINE",
    show_envvar=True,
    help="What executes searches (default: native). `fllm-export info` shows which engines can run here.",
)

encoder_option = click.option(
    "--encoder",
    type=click.Choice(ENCODERS),
    envvar="FLLM_ENCODER",
    show_envvar=True,
    help="What encodes texts (default: tensorrt with the engine tensorrt, otherwise cpu). "
    "cpu-fp32 ignores the --encoder-precision of the build.",
)

mode_option = click.option(
    "--mode",
    type=click.Choice(MODES),
    default="topk",
    show_default=True,
    help="The best K users, or K users sampled from the distribution without replacement.",
)

exact_option = click.option(
    "--exact/--no-exact",
    default=None,
    help="Return the provably best users of the table, or those that the statistical bounds of the sketch find. "
    "Default: --exact.",
)

log_probs_option = click.option(
    "--log-probs",
    type=click.Choice(LOG_PROBS),
    help="exact reads every row. certified leaves out rows that are proven to change no log-probability by more than "
    "0.001. estimate reads a sample. none omits probabilities. Default: exact; with --no-exact: estimate.",
)


refine_option = click.option(
    "--refine",
    type=click.IntRange(0),
    metavar="C",
    help="Rank the C x K best users again, by the refinement rows of the table. 0: only the rows that are scanned. "
    "Default: 4 if the table has refinement rows.",
)

operating_point_option = click.option(
    "--operating-point",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What sweep picked: sets the options that are not typed, and refuses a table of another kind.",
)


def named_options(table: TableOptions, *, typed_only: bool) -> TableChoices:
    """Return the options of :func:`table_options`, or only those of them that were typed."""
    source = click.get_current_context().get_parameter_source
    names = [
        each.name
        for each in fields(table)
        if "help" in each.metadata and (not typed_only or source(each.name) is ParameterSource.COMMANDLINE)
    ]
    return cast("TableChoices", {name: getattr(table, name) for name in names})


def typed(name: str, value: Value | None) -> Value | None:
    """Return the value of an option if it was typed; what the environment says is for all that is opened."""
    source = click.get_current_context().get_parameter_source(name)
    return value if source is ParameterSource.COMMANDLINE else None


def encoder_for(source: Path, encoder: str | None) -> str | None:
    """Return the encoder that was typed; None where there is none, and where the environment says which.

    ``FLLM_ENCODER`` is for all that is opened, user tables too, and whoever opens a bundle reads it.

    Raises:
        UsageError: one was typed for a user table.
    """
    chosen = typed("encoder", encoder)
    if chosen is not None and USER_TABLE.found_at(source):
        raise UsageError(
            f"{source} is a user table, and an encoder was given",
            expected="no encoder, because a table holds users alone",
            fix="For item texts, specify a bundle",
        )
    return chosen


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a table, collected in one argument ``table``, a :class:`TableOptions`."""
    offered = [field for field in fields(TableOptions) if "help" in field.metadata]

    # The options that the command has already travel along with it.
    @functools.wraps(command)
    def collected(**arguments: Any) -> Any:
        choices = {field.name: arguments.pop(field.name) for field in offered}
        return command(table=TableOptions(**choices), **arguments)

    wrapped: Callable[..., Any] = collected
    for field in reversed(offered):
        values = field.metadata.get("values")
        option = click.option(
            "--" + field.name.replace("_", "-"),
            type=str if values is None else click.Choice(values),
            callback=_bytes if values is None else None,
            default=_byte_text(field.default) if values is None else field.default,
            show_default=True,
            help=field.metadata["help"],
        )
        wrapped = option(wrapped)
    return wrapped
