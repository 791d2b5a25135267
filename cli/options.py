"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click

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
