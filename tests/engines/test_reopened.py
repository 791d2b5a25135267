"""Several threads that open a table again at a time: what was opened last is current."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.engines.reference import NumpyEngine
from fllm_export.engines.reopened import ReopenedEngine
from fllm_export.table.table import Table

ROWS = np.random.default_rng(4).standard_normal((300, 16)).astype(np.float32)


class Slow:
    """Opens a table, and waits before it gives the one that it opened second."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.opened = 0
        self.second, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> Any:
        self.opened += 1
        number = self.opened
        made = NumpyEngine(Table(self.directory))
        if number == 2:
            self.second.set()
            assert self.go_on.wait(30)
        return made


def test_an_older_generation_does_not_take_the_place_of_a_newer(tmp_path: Path) -> None:
    table = UserTable.create(tmp_path / "t", ROWS)
    slow = Slow(tmp_path / "t")
    engine = ReopenedEngine("numpy", slow)
    older = threading.Thread(target=engine.reopen)
    older.start()
    assert slow.second.wait(30)
    table.append(ROWS[:2], np.array([1000, 1001]))
    newer = threading.Thread(target=engine.reopen)
    newer.start()
    newer.join(0.5)  # it is over where both may open at a time
    slow.go_on.set()
    older.join(30), newer.join(30)
    assert engine.facts.generation == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_opens_again_what_a_thread_of_its_parent_was_opening(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS)
    slow = Slow(tmp_path / "t")
    engine = ReopenedEngine("numpy", slow)
    opening = threading.Thread(target=engine.reopen)
    opening.start()
    assert slow.second.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        engine.reopen()
        os._exit(0)
    slow.go_on.set()
    opening.join(30)
    assert os.waitpid(child, 0)[1] == 0
