"""Children of a process that has a table or a bundle open, as gunicorn makes them with --preload."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Runtime, UserTable
from fllm_export.bundle.bundle import Bundle

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def holds_in_child(work: Callable[[], bool | None]) -> bool:
    """Return whether a child, given 20 seconds, ends as it should and ``work`` returns no false there."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        right = 1
        try:
            right = 0 if work() is not False else 1
        finally:
            os._exit(right)
    return os.waitpid(child, 0)[1] == 0


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((20_000, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def directory(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "users"
    UserTable.create(path, rows)
    return path


@contextmanager
def searching(table: UserTable, z: np.ndarray) -> Iterator[None]:
    """Search from two threads meanwhile."""
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            table.topk(z, 5)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_children_search_while_the_parent_does(directory: Path, rows: np.ndarray) -> None:
    table = UserTable.open(directory, threads=3)
    z = rows[:2]
    wanted = table.topk(z, 5).user_ids

    def search() -> bool:
        return bool((table.topk(z, 5).user_ids == wanted).all())

    def reopen() -> bool:
        table.reopen()
        return search()

    def let_go() -> None:
        nonlocal table
        del table

    with searching(table, z):
        for _ in range(5):
            assert holds_in_child(search)
            assert holds_in_child(reopen)
            assert holds_in_child(let_go)
        assert holds_in_child(lambda: search() and holds_in_child(search))
    assert search()


ENDING = """
import os, signal, sys
import numpy as np
from fllm_export import Runtime
runtime = Runtime.open(sys.argv[1], threads=4)
runtime.topk(["a paper on graphs"], 5)
child = os.fork()
if child == 0:
    signal.alarm(20)
    sys.exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


def test_a_child_may_end_as_any_program(tiny_bundle: Bundle) -> None:
    command = [sys.executable, "-c", ENDING, str(tiny_bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_children_answer_texts(engine: str, tiny_bundle: Bundle) -> None:
    runtime = Runtime.open(tiny_bundle.path, engine=engine, threads=4)
    texts = ["a paper on graphs", "a longer text about graphs and genes"]
    wanted = runtime.topk(texts, 5).user_ids

    def ask() -> bool:
        return bool((runtime.topk(texts, 5).user_ids == wanted).all())

    def let_go() -> None:
        nonlocal runtime
        del runtime

    for _ in range(3):
        assert holds_in_child(ask)
        assert holds_in_child(let_go)
    assert ask()
