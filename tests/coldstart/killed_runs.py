"""Runs ``fllm-export onboard --follow`` again and again, and kills it at random moments, while its file grows.

    python -m tests.coldstart.killed_runs FOLDER KILLS SEED

FOLDER holds ``users/``, ``recommender.safetensors`` and ``whole.jsonl``, which is copied to ``items.jsonl`` bit by bit.
Every run is a child of this process that has loaded everything already, so that a kill seldom hits the start.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

import faiss  # noqa: F401 - loaded once, before the forks
import numpy  # noqa: F401
import pyarrow.parquet  # noqa: F401

import fllm_export.coldstart.item_stream
import fllm_export.runtime.runtime  # noqa: F401
from fllm_export.cli.main import main

_PIECES = 60


def onboard(folder: Path, idle: float) -> None:
    """Run the verb in this process and end it."""
    paths = [folder / name for name in ("users", "items.jsonl")]
    options = ["--recommender", folder / "recommender.safetensors", "--out", folder / "out", "--batch", 16]
    options += ["--index", folder / "items.faiss", "--follow", "--idle-seconds", idle, "--threads", 1]
    code = 1
    try:
        main(["--quiet", "onboard", *map(str, [*paths, *options])], standalone_mode=True)
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os._exit(code)


def child(work: object, *arguments: object) -> int:
    """Fork; return the id of the child that does the work."""
    process = os.fork()
    if process == 0:
        work(*arguments)  # type: ignore[operator]
        os._exit(0)
    return process


def grow(folder: Path, seed: int, seconds: float) -> None:
    """Append the whole file to the growing one in pieces of any size, cut anywhere."""
    content = (folder / "whole.jsonl").read_bytes()
    generator = random.Random(seed)
    cuts = sorted([0, len(content), *(generator.randrange(len(content)) for _ in range(_PIECES))])
    with (folder / "items.jsonl").open("ab", buffering=0) as file:
        for begin, end in pairwise(cuts):
            file.write(content[begin:end])
            time.sleep(seconds / _PIECES)


def size(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def killed_runs(folder: Path, kills: int, seed: int) -> int:
    """Return how many of the runs were killed while they worked."""
    generator = random.Random(seed)
    (folder / "items.jsonl").touch()
    writer = child(grow, folder, seed, 0.35 * kills)
    hits = 0
    for _ in range(kills):
        before = size(folder / "out" / "journal.jsonl")
        run = child(onboard, folder, 60.0)
        # Some kills hit the start; most come after the run's first batch.
        waits = time.monotonic() + generator.choice([0.0, 10.0, 10.0, 10.0])
        while time.monotonic() < waits and size(folder / "out" / "journal.jsonl") == before:
            time.sleep(0.002)
        time.sleep(generator.uniform(0.0, 0.5))
        os.kill(run, signal.SIGKILL)
        _, status = os.waitpid(run, 0)
        hits += os.WIFSIGNALED(status)
    os.waitpid(writer, 0)
    _, status = os.waitpid(child(onboard, folder, 0.2), 0)
    if status:
        sys.exit(f"the last run ended with status {status}")
    return hits


if __name__ == "__main__":
    sys.stdout.write(str(killed_runs(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
