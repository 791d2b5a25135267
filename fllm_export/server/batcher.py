"""Requests that wait for a pass over the table, and the threads that make one pass of many requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fllm_export.runtime.topk import TopK
from fllm_export.server.served import Served

Reason = Literal["full", "waited", "alone", "closing"]
"""Why a pass began: it had its items, its wait was over, its kind is never merged, or the server ends."""

REASONS: tuple[Reason, ...] = ("full", "waited", "alone", "closing")


@dataclass(eq=False)
class Client:
    """Who asked.

    Attributes:
        gone: whether the connection was lost, so that no answer is needed.
    """

    gone: bool = False


@dataclass(eq=False)
class Waiting:
    """A request that waits for its pass.

    Attributes:
        served: what answers it.
        z: item vectors, float32 [items, dim].
        search: what to select, from :meth:`fllm_export.UserTable.request`.
        filter_key: what tells filters apart, or None.
        give_up: time of :func:`time.monotonic` after which no pass is begun for it.
        done: called from another thread with the answer or the error; it must return at once.
        since: when it was given to the batcher, in seconds of :func:`time.monotonic`.
        client: who asked.
        begun: when its pass began, likewise.
        rerun: whether a pass with others was cut short before its own budget was over.
    """

    served: Served
    z: npt.NDArray[np.float32]
    search: Any
    filter_key: bytes | None
    give_up: float
    done: Callable[[TopK | BaseException], None]
    client: Client
    since: float = 0.0
    begun: float = 0.0
    rerun: bool = False

    @property
    def kind(self) -> tuple[Any, ...]:
        """Requests of equal kind can share a pass.

        Requests with a budget share passes with each other only: a pass ends at the earliest of its budgets.
        """
        found = self.search
        timed = found.deadline is not None
        return self.served, found.k, found.mode, found.log_probs, found.refine, self.filter_key, timed

    @property
    def alone(self) -> bool:
        """Whether other items in its pass could change its answer, beyond the last digits of log-probabilities.

        Whether rows are ruled out by statistical bounds depends on how many items share a pass.
        """
        return not self.search.exact or self.rerun


class Expired(Exception):
    """A request waited too long for its pass."""


class Batcher:
    """Threads that take waiting requests of one kind at a time and answer them by one pass.

    Args:
        most_items: items per pass; a request with more has a pass of its own.
        wait_s: seconds that the first request of a pass waits for others.
        passes: number of threads.
        observe: told of every pass: why it began, its items, and how many requests were dropped before it.
    """

    def __init__(
        self, most_items: int, wait_s: float, passes: int, observe: Callable[[Reason, int, int], None]
    ) -> None:
        self._most_items = most_items
        self._wait_s = wait_s
        self._observe = observe
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._running = 0
        self._beside = 0  # passes that may still begin beside the first of those that run
        self._threads = [threading.Thread(target=self._work, name=f"pass-{i}", daemon=True) for i in range(passes)]
        for thread in self._threads:
            thread.start()

    def submit(self, request: Waiting) -> None:
        """Let a request wait for its pass."""
        request.since = time.monotonic()
        with self._changed:
            self._waiting.append(request)
            self._changed.notify()

    def depth(self) -> int:
        """Return how many items wait for a pass."""
        with self._changed:
            return sum(len(request.z) for request in self._waiting)

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        # Nothing of a pass outlives this call, so that a table that was replaced goes with its last request.
        while self._one_pass():
            pass

    def _one_pass(self) -> bool:
        with self._changed:
            while (chosen := self._chosen()) is None:
                if self._closing and not self._waiting:
                    return False
                self._changed.wait(self._patience())
            taken, reason = chosen
            self._take(taken)
        try:
            dropped = self._drop(taken)
            if taken:
                self._observe(reason, sum(len(request.z) for request in taken), dropped)
            answer = _answered(taken)
        finally:
            with self._changed:
                self._running -= 1
                # Whoever is woken may go on to end: at the end every thread must look.
                self._changed.notify(len(self._threads) if self._closing else 1)
        self._deliver(taken, answer)
        return True

    def _chosen(self) -> tuple[list[Waiting], Reason] | None:
        """Return the requests of the next pass, or None where it is better to wait.

        While a pass is made, further requests wait and share the next one, unless they fill one already. When a pass
        may begin, requests of other kinds that wait at that moment begin theirs beside it: the engine ``native`` makes
        one pass of these.
        """
        if not self._waiting:
            self._beside = 0
            return None
        first = self._waiting[0]
        taken, full = ([first], False) if first.alone else self._of_kind(first)
        if not full and self._running and not self._beside:
            return None
        if first.alone:
            return taken, "alone"
        if full:
            return taken, "full"
        if self._closing:
            return taken, "closing"
        return (taken, "waited") if time.monotonic() >= first.since + self._wait_s else None

    def _patience(self) -> float | None:
        """Return how long to wait for a change at most, in seconds; None is for ever."""
        if not self._waiting or (self._running and not self._beside):
            return None
        return max(0.0, self._waiting[0].since + self._wait_s - time.monotonic())

    def _take(self, taken: list[Waiting]) -> None:
        gone = set(map(id, taken))
        self._waiting = deque(request for request in self._waiting if id(request) not in gone)
        self._beside = max(0, self._beside - 1) if self._running else self._others(taken[0])
        self._running += 1
        if self._waiting and self._beside > 0:
            self._changed.notify()

    def _others(self, first: Waiting) -> int:
        """Return how many kinds wait besides that of a pass. A request that is never merged is a kind of its own."""
        kinds = {(id(request),) if request.alone else request.kind for request in self._waiting}
        return len(kinds if first.alone else kinds - {first.kind})

    def _of_kind(self, first: Waiting) -> tuple[list[Waiting], bool]:
        taken, items, kind = [first], len(first.z), first.kind
        for request in self._waiting:
            if request is first or request.alone or request.kind != kind:
                continue
            if items + len(request.z) > self._most_items:
                return taken, True
            taken.append(request)
            items += len(request.z)
        return taken, items >= self._most_items

    def _drop(self, taken: list[Waiting]) -> int:
        """Take out of a pass whose clients have gone, and who waited too long; return their number."""
        now, before = time.monotonic(), len(taken)
        for request in list(taken):
            request.begun = now
            if request.client.gone or now > request.give_up:
                taken.remove(request)
                request.done(Expired())
        return before - len(taken)

    def _deliver(self, taken: list[Waiting], answer: TopK | BaseException | None) -> None:
        if isinstance(answer, BaseException):
            if len(taken) == 1:
                taken[0].done(answer)
                return
            # Only one of them may be to blame, for example by scores beyond float32's range.
            for request in taken:
                self._deliver([request], _answered([request]))
            return
        ended = time.monotonic()
        start = 0
        for request in taken:
            assert answer is not None
            part = _part(answer, slice(start, start + len(request.z)))
            start += len(request.z)
            deadline = request.search.deadline
            if len(taken) > 1 and not part.complete.all() and deadline is not None and ended < deadline:
                # Another request's budget ended the pass, and this one still has time.
                request.rerun = True
                with self._changed:
                    self._waiting.appendleft(request)
                    self._changed.notify()
            else:
                request.done(part)


def _answered(taken: list[Waiting]) -> TopK | BaseException | None:
    """Return the answer to some requests of one kind, or why there is none; None to no request."""
    try:
        return _one_answer(taken) if taken else None
    except BaseException as error:
        return error


def _one_answer(taken: Sequence[Waiting]) -> TopK:
    search = taken[0].search
    if len(taken) == 1:
        return taken[0].served.users.answer(taken[0].z, search)
    seeds = tuple(seed for request in taken for seed in request.search.seeds)
    if search.deadline is not None:
        search = replace(search, deadline=min(request.search.deadline for request in taken))
    z = np.concatenate([request.z for request in taken])
    return taken[0].served.users.answer(z, replace(search, seeds=seeds))


_ARRAYS = tuple(field.name for field in fields(TopK) if field.name not in ("generation", "timings_ms"))


def _part(answer: TopK, items: slice) -> TopK:
    """Return the answer of some items."""
    arrays = {name: getattr(answer, name)[items] for name in _ARRAYS}
    return TopK(**arrays, generation=answer.generation, timings_ms=answer.timings_ms)
