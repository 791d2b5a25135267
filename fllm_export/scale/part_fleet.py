"""A router's side of the connections to parts: where replicas are, which is asked, what becomes of lost ones."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

from fllm_export.scale.frames import Address, Channel
from fllm_export.scale.part_host import PartRequest, Reply
from fllm_export.scale.wire import PartFailed, WireError, read_reply, request_bytes

Find = Callable[[], Sequence[Address]]
"""Asks whoever supervises the replicas of a part where they are now. It is called on a thread of its own."""

_LOG = logging.getLogger("fllm_export.scale")
_REFRESH_S = 5.0
"""Age at which what is known of the replicas is looked up again, while requests go on."""
_FIND_S = 30.0
"""How long a part without any replica is looked up before its requests fail; most wait for less than that."""

_CONNECT_S = 1.0
_SEND_S = 5.0
_LEAST_S = 0.05
_PAUSE_S = 0.2
_IDLE_MAX = 16


class PartFleet:
    """Processes that hold the parts of a table, reached by connections of their own. Safe to use from many threads.

    A connection carries one request at a time and is kept for the next one. Replicas of a part take turns.

    Args:
        finds: by part, what finds its replicas.
    """

    def __init__(self, finds: Sequence[Find]) -> None:
        self.parts = len(finds)
        self._links = [_Link(find) for find in finds]

    def ask(self, part: int, asked: PartRequest) -> PartReply:
        """Send a request to the next replica of a part.

        Raises:
            OSError: no replica that is known takes it.
        """
        return self._links[part].ask(asked)

    def close(self) -> None:
        """End all connections that no request is on."""
        for link in self._links:
            link.close()


class PartReply:
    """A reply that is on its way.

    Args:
        link: to the part.
        asked: the request.
        finding: what the request waits for before it can be sent, or None where it is sent.
    """

    def __init__(self, link: _Link, asked: PartRequest, finding: Future[None] | None) -> None:
        self._link, self._asked, self._finding = link, asked, finding
        self._began = time.monotonic()
        self._sent = None if finding else link.send(asked)

    def result(self, *, timeout_s: float | None) -> Reply:
        """Wait for the reply.

        Raises:
            OSError: the connection ends, the time ends, or no replica is found.
            PartFailed: the part failed.
            WireError: what comes is not a reply.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        if self._sent is None:
            assert self._finding is not None
            try:
                self._finding.result(timeout_s)
            except TimeoutError:
                raise TimeoutError("no replica of it is up; it may be starting, or wait for a processor") from None
            self._sent = self._link.send(self._later())
        address, channel = self._sent
        try:
            message = channel.receive(None if until is None else max(1e-3, until - time.monotonic()))
            reply = read_reply(*message)
        except TimeoutError:
            channel.close()  # a reply that comes later must not meet the next request
            raise
        except (OSError, WireError):
            self._link.lose(address, channel)
            raise
        except PartFailed:
            self._link.keep(address, channel)
            raise
        self._link.keep(address, channel)
        return reply

    def _later(self) -> PartRequest:
        """Return the request with the budget that is left by now."""
        budget = self._asked.budget_s
        return replace(
            self._asked, budget_s=None if budget is None else max(1e-6, budget - (time.monotonic() - self._began))
        )


class _Link:
    """The replicas of one part."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._idle: dict[Address, list[Channel]] = {}  # of the replicas that are known, in the order of their turns
        self._finding: Future[None] | None = None
        self._looked = 0.0
        self._missed = True

    def ask(self, asked: PartRequest) -> PartReply:
        age = time.monotonic() - self._looked
        finding = self._lookup() if age > (_PAUSE_S if self._missed else _REFRESH_S) else self._finding
        return PartReply(self, asked, None if self._idle else finding)

    def send(self, asked: PartRequest) -> tuple[Address, Channel]:
        """Send a request to the next replica that takes it."""
        message, failure = request_bytes(asked), None
        connect_s = _CONNECT_S if asked.budget_s is None else min(_CONNECT_S, max(_LEAST_S, asked.budget_s))
        for address, idle in self._turns():
            channel = idle
            try:
                channel = idle or Channel.to(address, connect_s)
                channel.send(*message, timeout_s=_SEND_S)
                return address, channel
            except (OSError, WireError) as error:
                failure = error
                self.lose(address, channel)
        raise ConnectionError("no replica of the part is known to be up") from failure

    def keep(self, address: Address, channel: Channel) -> None:
        """Take back a connection on which a reply has come."""
        with self._lock:
            idle = self._idle.get(address)
            if idle is not None and len(idle) < _IDLE_MAX:
                idle.append(channel)
                return
        channel.close()

    def lose(self, address: Address, channel: Channel | None) -> None:
        """Ask this replica no more, until it is found again."""
        with self._lock:
            stale = self._idle.pop(address, [])
            self._missed = True
        for each in [*stale, *([] if channel is None else [channel])]:
            each.close()

    def close(self) -> None:
        for address in list(self._idle):
            self.lose(address, None)

    def _turns(self) -> Iterator[tuple[Address, Channel | None]]:
        """Yield each known replica once, with an idle connection to it where there is one; who is yielded waits."""
        for _ in range(len(self._idle)):
            with self._lock:
                if not self._idle:
                    return
                address = next(iter(self._idle))
                idle = self._idle[address] = self._idle.pop(address)
                channel = idle.pop() if idle else None
            yield address, channel

    def _lookup(self) -> Future[None]:
        """Begin to look replicas up, unless that is under way."""
        with self._lock:
            if self._finding is None:
                self._finding, self._looked = Future(), time.monotonic()
                threading.Thread(target=self._look, args=(self._finding,), name="part-lookup", daemon=True).start()
            return self._finding

    def _look(self, finding: Future[None]) -> None:
        until, attempts = time.monotonic() + _FIND_S, 0
        while not (found := self._found(attempts)) and time.monotonic() < until:
            attempts += 1
            time.sleep(_PAUSE_S)  # all replicas are being started again
        with self._lock:
            known = self._idle
            if found:
                self._idle = {address: known.get(address, []) for address in found}
            gone = [channel for address in known.keys() - self._idle.keys() for channel in known[address]]
            self._finding, self._looked, self._missed = None, time.monotonic(), not found
        for channel in gone:
            channel.close()
        finding.set_result(None)

    def _found(self, attempts: int) -> list[Address]:
        try:
            return list(self._find())
        except Exception as error:  # whatever the supervisor of the replicas raises, it does not know where they are
            if not attempts:  # the next ones of this lookup would say the same, many times per second
                _LOG.warning("replicas of a part are not found: %s: %s", type(error).__name__, str(error)[:300])
            return []
