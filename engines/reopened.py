"""An engine written in Python whose table can be opened again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request, TableFacts, check_reopened


class Searcher(Protocol):
    """Searches one open table, which stays the same as long as it lives."""

    @property
    def facts(self) -> TableFacts:
        """What is open."""
        ...

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan the table for a batch of item vectors, float32 [B, d]."""
        ...


class ReopenedEngine:
    """Holds the searcher of the newest table. A search keeps the one that it began with.

    Args:
        name: the engine's name.
        make: opens the table's directory as it is now, and returns a searcher of it.
    """

    def __init__(self, name: str, make: Callable[[], Searcher]) -> None:
        self.name = name
        self._make = make
        self._current = make()
        # By process: after a fork, a thread that is not in the child may hold its parent's.
        self._turns: dict[int, threading.Lock] = {}

    @property
    def facts(self) -> TableFacts:
        """What is open now."""
        return self._current.facts

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan the table for a batch of item vectors, float32 [B, d]."""
        return self._current.search(z, request)

    def reopen(self) -> None:
        """Open the directory again, and make it current if its rows have the same dimension and the same link.

        Of several threads one opens at a time, so that what was opened last is current.
        """
        with self._turns.setdefault(os.getpid(), threading.Lock()):
            fresh = self._make()
            check_reopened(self.facts, fresh.facts)
            self._current = fresh
