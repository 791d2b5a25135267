"""A program that changes a table, killed at a random moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from fllm_export.table.layout import FILE_NAME, PREVIOUS_NAME, TableLayout
from fllm_export.table.living import COMPACTION_LOCK, LOCK_NAME


def killed(program: str, seed: int, *arguments: str | Path | int) -> tuple[list[str], str | None]:
    """Return the changes that a writer announced and ended before it was killed, and the one that was under way.

    Args:
        program: Python code. It prints ``ready``, then a line that starts with ``begin`` before each change, and
            another line after it. Its last argument is the directory ``tests``, for its imports.
        seed: of the time that it lives.
        arguments: of the program, before that directory.
    """
    command = [sys.executable, "-c", program, *map(str, arguments), str(Path(__file__).parents[1])]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    time.sleep(random.Random(seed).uniform(0.0, 0.25))
    os.kill(writer.pid, signal.SIGKILL)
    lines = [line for line in writer.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    ended: list[str] = []
    under_way = None
    for line in lines:
        if line.startswith("begin"):
            under_way = line
        else:
            assert under_way is not None
            ended.append(under_way)
            under_way = None
    return ended, under_way


def leftovers(directory: Path) -> set[str]:
    """Return the names of files that neither the layout of a table nor the one before it lists."""
    fixed = {FILE_NAME, PREVIOUS_NAME, LOCK_NAME, COMPACTION_LOCK}
    before = TableLayout._read(directory / PREVIOUS_NAME)
    listed = {file.name for layout in (TableLayout.load(directory), before) for file in layout.files}
    return {path.name for path in directory.iterdir()} - fixed - listed
