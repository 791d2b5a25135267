"""An engine written in Python whose table can be opened again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request, TableFacts, check_reopened
from fllm_export.engines.turn import Turn


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
        self._turn = Turn()

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
        with self._turn.lock():
            fresh = self._make()
            check_reopened(self.facts, fresh.facts)
            self._current = fresh
