"""What a machine that holds a part of a table does: open it, and answer for one generation of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Engine, Request
from fllm_export.engines.registry import NativeOptions, Source, engine_name, open_engine
from fllm_export.environment import thread_count
from fllm_export.errors import FllmError
from fllm_export.table.layout import TableLayout

_KEPT = 2
"""Generations that stay open: the newest, and the one that requests under way may still name."""


@dataclass(frozen=True)
class PartRequest:
    """What a part is asked. It travels between machines, whose clocks differ, so it has no point in time.

    Attributes:
        z: item vectors, float32 [B, d].
        request: what to select, without a deadline.
        budget_s: seconds that are left when the request is sent; None is no limit.
        generation: the one to answer from.
    """

    z: npt.NDArray[np.float32]
    request: Request
    budget_s: float | None
    generation: int


@dataclass(frozen=True)
class OtherGeneration:
    """A part that cannot answer from the generation that was requested.

    Attributes:
        found: the generation at the path now.
    """

    found: int


Reply = Answer | OtherGeneration | FllmError
"""An error is one of the request or of the table. It is no reason to ask elsewhere."""


@dataclass(frozen=True)
class PartOptions:
    """How a part is opened.

    Attributes:
        directory: the user table, which every machine reaches by this path.
        part: number of the part, and how many parts there are.
        engine: name of the engine that scans, or None for the default.
        threads: threads inside one call, or None for the default.
        native: options that only the engine ``native`` has.
    """

    directory: Path
    part: tuple[int, int]
    engine: str | None = None
    threads: int | None = None
    native: NativeOptions | None = None

    def open(self) -> Engine:
        """Open what is at the path now.

        Raises:
            FllmError: as :meth:`fllm_export.UserTable.open`.
        """
        source = Source(self.directory, None, thread_count(self.threads), self.native or {}, self.part)
        return open_engine(engine_name(self.engine), source)


class PartHost:
    """Answers for one part of a table. Safe to call from many threads at once.

    The two newest generations that were opened stay open, so a router moves on to a new one without a pause.

    Args:
        options: how the part is opened; nothing is opened before the first request.
    """

    def __init__(self, options: PartOptions) -> None:
        self._options = options
        self._opened: dict[int, Engine] = {}
        self._opening = threading.Lock()

    def answer(self, asked: PartRequest) -> Reply:
        """Answer a request from the generation that it names."""
        began = time.monotonic()
        try:
            engine = self._engine(asked.generation)
            if isinstance(engine, OtherGeneration):
                return engine
            deadline = None if asked.budget_s is None else began + asked.budget_s
            request = replace(asked.request, k=min(asked.request.k, engine.facts.rows), deadline=deadline)
            return engine.search(asked.z, request)
        except FllmError as error:
            return error

    def reload(self) -> int:
        """Open what is at the path now, unless it is open, and return its generation.

        Raises:
            FllmError: as :meth:`PartOptions.open`; what was open stays open.
        """
        with self._opening:
            generation = TableLayout.load(self._options.directory).generation
            return generation if generation in self._opened else self._open().facts.generation

    def _engine(self, generation: int) -> Engine | OtherGeneration:
        engine = self._opened.get(generation)
        if engine is not None:
            return engine
        with self._opening:
            if generation in self._opened:
                return self._opened[generation]
            opened = self._open()
            found = opened.facts.generation
            return opened if found == generation else OtherGeneration(found)

    def _open(self) -> Engine:
        """Open what is at the path, and keep it even where it is not the one that was requested: it will be."""
        opened = self._options.open()
        newest = sorted({*self._opened, opened.facts.generation})[-_KEPT:]
        self._opened = {known: self._opened.get(known, opened) for known in newest}
        return opened
