"""Arguments and options that several verbs share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from fllm_export.table.options import TableOptions

DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
"""A directory that is there."""

threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    envvar="FLLM_NUM_THREADS",
    show_envvar=True,
    help="Threads (default: every CPU).",
)

engine_option = click.option(
    "--engine",
    envvar="FLLM_ENGINE",
    show_envvar=True,
    help="native, cuda, tensorrt, onnxruntime or numpy (default: native).",
)

encoder_option = click.option(
    "--encoder",
    envvar="FLLM_ENCODER",
    show_envvar=True,
    help="cpu, cuda, tensorrt or tensorrt-PRECISION (default: cpu; tensorrt beside that engine).",
)


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
        option = click.option(
            "--" + field.name.replace("_", "-"),
            type=click.Choice(field.metadata["values"]),
            default=field.default,
            show_default=True,
            help=field.metadata["help"],
        )
        wrapped = option(wrapped)
    return wrapped
