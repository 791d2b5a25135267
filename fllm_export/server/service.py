"""What the server does with a request, from the bytes of its body to the bytes of its answer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from fllm_export.runtime.topk import TopK
from fllm_export.server.access import Authenticate
from fllm_export.server.answer import answer_json
from fllm_export.server.batcher import Batcher, Client, Expired, Waiting
from fllm_export.server.failures import overloaded, unavailable
from fllm_export.server.metrics import Metrics
from fllm_export.server.options import ServerOptions, SourceOptions
from fllm_export.server.request import Question
from fllm_export.server.served import Encoded, Opens, Served
from fllm_export.server.tracing import Timeline, Tracing

P = ParamSpec("P")
R = TypeVar("R")

_LOG = logging.getLogger("fllm_export.server")
_SMALL_BODY_BYTES = 64 << 10
_SMALL_ANSWER_USERS = 4000


@dataclass(frozen=True)
class Access:
    """Who may do what.

    Attributes:
        authenticate: check of a request's headers, or None to let everyone ask.
        other_paths: whether ``/v1/reload`` may name another bundle or table.
    """

    authenticate: Authenticate | None = None
    other_paths: bool = False


class Service:
    """Answers requests about what is served now. All methods belong to one event loop.

    Args:
        source: what is served, and how it is opened.
        options: limits.
        access: who may do what.
        tracing: where spans go, or None.
        opens: how what is served is opened.
    """

    def __init__(
        self,
        source: SourceOptions,
        options: ServerOptions,
        access: Access | None = None,
        tracing: Tracing | None = None,
        opens: Opens = Served.open,
    ) -> None:
        self.options = options
        self.access = access or Access()
        self.metrics = Metrics()
        self.closing = False
        self._source = source
        self._tracing = tracing
        self._opens = opens
        self._served: Served | None = None
        self._reloading = asyncio.Lock()
        self._admitted: dict[object, float] = {}  # in the order of arrival
        self._admitted_items = 0
        self._encoders = ThreadPoolExecutor(options.encode_workers, "encode")
        self._helpers = ThreadPoolExecutor(2, "helper")
        self._batcher = Batcher(options.max_batch, options.max_wait_ms / 1e3, options.passes, self.metrics.count_pass)
        self._add_gauges()

    @property
    def ready(self) -> bool:
        """Whether requests are answered: something is open, it answered a first query, and the server is not ending."""
        return self._served is not None and not self.closing

    @property
    def generation(self) -> int:
        """Version number of the table that is served; 0 where none is."""
        return 0 if self._served is None else self._served.users.generation

    async def load(self) -> None:
        """Open what is to be served, and let it answer once.

        Raises:
            FllmError: it cannot be opened or does not answer.
        """
        self._served = await self._in_helper(self._opens, self._source)

    async def reload(self, path: Path | None = None) -> int:
        """Open what is at the path now, or at another path, and put it in the place of what is served.

        Requests that are in the server end on what they began with, which is closed after the last of them. On failure
        nothing changes. Both are logged.

        Returns:
            The generation that is served now.

        Raises:
            FllmError: it cannot be opened or does not answer.
        """
        async with self._reloading:
            if self._served is None:
                raise unavailable("the server has not opened anything yet")
            source = self._source if path is None else replace(self._source, path=path)
            try:
                self._served = await self._in_helper(self._served.successor, source, self._opens)
            except Exception as error:
                self.metrics.count_reload(False)
                _LOG.error("reload of %s failed, what was served stays: %s", source.path, error)
                raise
            self._source = source
            self.metrics.count_reload(True)
            _LOG.info("reloaded: generation %d", self.generation)
            return self.generation

    async def answer(self, body: bytes, client: Client, headers: dict[str, str]) -> bytes:
        """Return the JSON answer to the body of a request.

        Raises:
            Refusal: the server is not ready, or has no place for the request.
            UsageError: the request is invalid.
            FllmError: as searching raises it.
        """
        began, timeline = time.monotonic(), Timeline()
        served = self._served
        if served is None:
            raise unavailable("the server has not opened its bundle yet")
        if len(body) <= _SMALL_BODY_BYTES:
            question = Question.parse(body, self.options)
        else:
            question = await self._in_helper(Question.parse, body, self.options)
        timeline.mark("parse")
        with self._place(len(question), began):
            answer, timings = await self._searched(served, question, client, began, timeline)
            if answer.user_ids.size <= _SMALL_ANSWER_USERS:
                text = answer_json(answer, timings)
            else:
                text = await self._in_helper(answer_json, answer, timings)
        self.metrics.count_answer(answer, timings, (time.monotonic() - began) * 1e3)
        timeline.mark("write")
        if self._tracing is not None:
            self._tracing.record(timeline, headers, len(question), question.k, answer)
        return text

    async def close(self) -> None:
        """Answer what waits, and end all threads."""
        await self._in_helper(self._batcher.close)
        self._encoders.shutdown()
        self._helpers.shutdown()
        self._served = None
        if self._tracing is not None:
            self._tracing.close()

    async def _searched(
        self, served: Served, question: Question, client: Client, began: float, timeline: Timeline
    ) -> tuple[TopK, dict[str, float]]:
        users = served.users
        chosen = None
        if question.listed is not None:
            chosen = users.filter(**{"deny" if question.deny else "allow": question.listed})
        search = users.request(
            len(question),
            question.k,
            question.budget_ms,
            question.mode,
            question.seed,
            began,
            question.exact,
            question.log_probs,
            chosen,
            question.refine,
        )
        encoded = await self._encoded(served, question)
        timeline.mark("encode")
        key = None if chosen is None else bytes([chosen.deny]) + chosen.user_ids.tobytes()
        return await self._passed(
            Waiting(served, encoded.z, search, key, began + self.options.answer_timeout_s, _nobody, client),
            encoded,
            timeline,
        )

    async def _encoded(self, served: Served, question: Question) -> Encoded:
        if question.source == "item_vectors":
            return served.encode(question)
        return await asyncio.get_running_loop().run_in_executor(self._encoders, served.encode, question)

    async def _passed(self, waiting: Waiting, encoded: Encoded, timeline: Timeline) -> tuple[TopK, dict[str, float]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[TopK | BaseException] = loop.create_future()

        def settle(found: TopK | BaseException) -> None:
            if not future.done():
                future.set_result(found)

        def done(found: TopK | BaseException) -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(settle, found)

        waiting.done = done
        self._batcher.submit(waiting)
        found = await future
        if isinstance(found, Expired):
            raise unavailable("the request waited too long for its turn", self._retry_after())
        if isinstance(found, BaseException):
            raise found
        timeline.mark("queue", waiting.begun)
        timeline.mark("scan")
        queue_ms = (waiting.begun - waiting.since) * 1e3
        return found, {**encoded.timings_ms, "queue": queue_ms, **found.timings_ms}

    @contextmanager
    def _place(self, items: int, began: float) -> Iterator[None]:
        """Hold a place for some items while they are in the server."""
        most = self.options.max_waiting_items
        # A request that is larger than all places is taken when it is alone.
        if self._admitted and self._admitted_items + items > most:
            raise overloaded(f"{self._admitted_items} of {most} items are waiting already", self._retry_after())
        ticket = object()
        self._admitted[ticket] = began
        self._admitted_items += items
        try:
            yield
        finally:
            del self._admitted[ticket]
            self._admitted_items -= items

    def _oldest_age_s(self) -> float:
        for began in self._admitted.values():
            return time.monotonic() - began
        return 0.0

    def _retry_after(self) -> int:
        return max(1, math.ceil(self._oldest_age_s()))

    async def _in_helper(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do work beside the event loop, which goes on with other requests."""
        return await asyncio.get_running_loop().run_in_executor(self._helpers, partial(work, *args, **kwargs))

    def _add_gauges(self) -> None:
        gauge = self.metrics.gauge
        gauge("fllm_ready", "1 while requests are answered.", lambda: float(self.ready))
        gauge("fllm_generation", "Version number of the table.", lambda: float(self.generation))
        gauge("fllm_users", "Users of the table.", lambda: 0.0 if self._served is None else len(self._served.users))
        gauge("fllm_queue_items", "Items that wait for a pass.", lambda: float(self._batcher.depth()))
        gauge("fllm_items_in_server", "Items between their request and its answer.", lambda: self._admitted_items)
        gauge("fllm_oldest_seconds", "Age of the oldest request in the server.", self._oldest_age_s)


def _nobody(_: TopK | BaseException) -> None:
    """Stand in for the one who waits until there is one."""
