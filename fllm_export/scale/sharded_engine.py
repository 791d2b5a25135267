"""The engine whose rows are on other machines: it asks all parts of a table at once and merges what they found."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request, TableFacts, check_reopened
from fllm_export.engines.refined import candidates, ranked_again
from fllm_export.errors import BudgetError, FllmError
from fllm_export.files import open_whole
from fllm_export.scale.merge import merge, nothing
from fllm_export.scale.part_host import OtherGeneration, PartRequest, Reply
from fllm_export.table.layout import FILE_NAME, TableLayout
from fllm_export.table.part import TablePart
from fllm_export.table.tombstones import Tombstones

OnLoss = Literal["partial", "refuse"]

_LOG = logging.getLogger("fllm_export.scale")
_GRACE_S = 0.05
_LOST = object()


class Pending(Protocol):
    """A reply that is on its way."""

    def result(self, *, timeout_s: float | None) -> Reply:
        """Wait for the reply.

        Raises:
            Exception: it does not come in time, or who was asked is gone. The part is then lost.
        """
        ...


class Fleet(Protocol):
    """Machines that hold the parts of a table, and what carries requests to them.

    Attributes:
        parts: of the table.
    """

    parts: int

    def ask(self, part: int, asked: PartRequest) -> Pending:
        """Send a request to some replica of a part, and return at once.

        Raises:
            Exception: no replica can be reached. The part is then lost.
        """
        ...


@dataclass(frozen=True)
class ShardedOptions:
    """What to do about parts that do not answer.

    Attributes:
        on_loss: ``partial`` answers from the other parts, with ``complete`` false and the coverage that was reached;
            ``refuse`` raises :class:`BudgetError`.
        retries: how often a lost part is asked again, of another replica where there is one.
        timeout_s: seconds to wait for a part where a request has no budget; longer replies are lost.
    """

    on_loss: OnLoss = "partial"
    retries: int = 1
    timeout_s: float = 30.0


@dataclass(frozen=True)
class _Opened:
    facts: TableFacts
    rows: tuple[int, ...]
    identity: str


class ShardedEngine:
    """Searches a table whose parts are on other machines. Safe to call from many threads at once.

    Where refinement rows rank candidates again, each part searches as many candidates as the whole table has and tells
    both their scores. So the best of all are those of one machine, and they are ranked again here.

    It reads ``table.json`` and the tombstones alone. All parts answer from one generation: a part that has another
    one makes the engine read ``table.json`` again and ask all parts once more.

    Args:
        directory: of the table.
        fleet: who answers for the parts.
        options: what to do about parts that do not answer.

    Raises:
        BundleError: the table is missing or damaged.
    """

    name = "sharded"

    def __init__(self, directory: Path, fleet: Fleet, options: ShardedOptions | None = None) -> None:
        self._directory = directory
        self._fleet = fleet
        self._options = options or ShardedOptions()
        self._reopening = threading.Lock()
        self._opened = self._read()

    @property
    def facts(self) -> TableFacts:
        """What answers are from now."""
        return self._opened.facts

    def reopen(self) -> None:
        """Move to the generation that is at the path now. Searches under way end on the old one.

        Raises:
            BundleError: the new table is damaged.
            UsageError: its rows have another dimension, or it has another link.
        """
        with self._reopening:
            fresh = self._read()
            check_reopened(self.facts, fresh.facts)
            self._opened = fresh

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan all parts for a batch of item vectors, float32 [B, d], and merge.

        Raises:
            BudgetError: no part has answered, or a part is lost and the options refuse answers without it, or parts
                are of another generation even after a second attempt.
            FllmError: as the parts raise it.
        """
        for _ in range(2):
            opened = self._opened
            replies = self._gather(opened, z, _scanned(opened.facts, request))
            stale = [reply for reply in replies.values() if isinstance(reply, OtherGeneration)]
            if not stale:
                return self._merged(opened, replies, len(z), request)
            self._follow(opened)
        raise BudgetError(
            f"parts of {self._directory} are of generation {stale[0].found}, and {opened.facts.generation} is served",
            expected="one generation on all machines",
            fix="Let all machines reach the same table",
        )

    def _follow(self, opened: _Opened) -> None:
        """Move on to a later generation of the same table, unless another thread has.

        Another table can belong to another encoder, with which only a caller of :meth:`reopen` can tell whether it is
        in use.
        """
        if self._opened is not opened:
            return
        if self._read().identity != opened.identity:
            raise BudgetError(
                f"{self._directory} holds another table now, and a part no longer has the one that is served",
                expected="the table that is served",
                fix="Reload the server",
            )
        self.reopen()

    def _gather(self, opened: _Opened, z: npt.NDArray[np.float32], request: Request) -> dict[int, Reply]:
        """Return the replies of the parts that answered; those that do not are asked again."""
        found: dict[int, Reply] = {}
        wanted = [part for part, rows in enumerate(opened.rows) if rows]
        for attempt in range(1 + self._options.retries):
            if attempt and request.expired:
                break
            pending = [(part, self._ask(part, opened, z, request)) for part in wanted]
            until = self._until(request)
            for part, waiting in pending:
                reply = _reply(part, waiting, max(0.0, until - time.monotonic()))
                if isinstance(reply, Answer) and not _answers(reply, len(z), request):
                    reply = _lost(part, ValueError("the answer is not one to the request"))
                if reply is not _LOST:
                    found[part] = reply
            wanted = [part for part in wanted if part not in found]
            if not wanted:
                break
        return found

    def _ask(self, part: int, opened: _Opened, z: npt.NDArray[np.float32], request: Request) -> Any:
        left = None if request.deadline is None else max(1e-6, request.deadline - time.monotonic())
        asked = PartRequest(z, replace(request, deadline=None), left, opened.facts.generation)
        try:
            return self._fleet.ask(part, asked)
        except Exception as error:  # whatever the transport raises, the part cannot be reached
            return _lost(part, error)

    def _until(self, request: Request) -> float:
        """Return when waiting ends, in seconds of :func:`time.monotonic`. A part always scores one tile."""
        if request.deadline is None:
            return time.monotonic() + self._options.timeout_s
        return max(request.deadline, time.monotonic()) + _GRACE_S

    def _merged(self, opened: _Opened, replies: dict[int, Reply], items: int, request: Request) -> Answer:
        began = time.perf_counter()
        for reply in replies.values():
            if isinstance(reply, FllmError):
                raise reply
        lost = [part for part, rows in enumerate(opened.rows) if rows and part not in replies]
        if lost and (self._options.on_loss == "refuse" or len(lost) == sum(map(bool, opened.rows))):
            raise BudgetError(
                f"{len(lost)} of {len(opened.rows)} parts of {self._directory} did not answer",
                expected="an answer from every part",
                fix="Try again, or give the request more time",
            )
        answers: Sequence[Any] = [replies[part] for part in sorted(replies)]
        facts = opened.facts
        if lost:  # what they hold is not scored
            answers = [*answers, *(nothing(items, opened.rows[part], facts.generation) for part in lost)]
        scanned = _scanned(facts, request)
        merged = merge(answers, scanned.k, facts.rows)
        if request.log_probs == "none":
            merged = replace(
                merged, logsumexp=np.full(items, np.nan), log_prob_error=np.full(items, np.nan, np.float32)
            )
        if scanned is not request:
            merged = ranked_again(merged, request, facts.link)
        return replace(merged, merge_ms=(time.perf_counter() - began) * 1e3)

    def _read(self) -> _Opened:
        layout, tombstones = open_whole("table", self._directory / FILE_NAME, self._layout)
        rows = tuple(part.rows(layout, tombstones) for part in TablePart.all(self._fleet.parts))
        return _Opened(TableFacts.of(layout), rows, layout.identity)

    def _layout(self) -> tuple[TableLayout, Tombstones]:
        layout = TableLayout.load(self._directory)
        return layout, Tombstones.of(self._directory, layout)


def _scanned(facts: TableFacts, request: Request) -> Request:
    """Return what the parts are asked: candidates of the whole table where they are to be ranked again."""
    if not request.refine or facts.refinement is None:
        return request
    return candidates(request, facts.rows)


def _answers(reply: Answer, items: int, request: Request) -> bool:
    return len(reply.ids) == items and (reply.refined_scores is not None) == request.refined_scores


def _reply(part: int, waiting: Any, timeout_s: float) -> Any:
    if waiting is _LOST:
        return _LOST
    try:
        return waiting.result(timeout_s=timeout_s)
    except Exception as error:  # a timeout, a dead actor, a broken connection: the part is lost
        return _lost(part, error)


def _lost(part: int, error: Exception) -> object:
    _LOG.warning("part %d did not answer: %s: %s", part, type(error).__name__, str(error)[:300])
    return _LOST
