"""A client that keeps many connections busy with little work of its own: prepared requests, one thread, epoll.

In a closed loop every connection sends its next request as soon as its answer is there. In an open loop requests are
due at fixed times whether or not answers come, and latency counts from the time at which a request was due: a server
that stalls is charged for the requests that had to wait for a free connection as well.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        seconds: from the first request to the last answer.
        statuses: answers by HTTP status; 0: the connection broke.
        latency_ms: of answers with status 200, from the time at which each was due.
    """

    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Return a quantile of the latency, in milliseconds."""
        return float(np.quantile(self.latency_ms, share)) if self.latency_ms else float("nan")


class Client:
    """Connections to one server.

    Args:
        port: of 127.0.0.1.
        path: route to POST to.
        bodies: bodies of requests, sent one after the other.
        connections: number of them.
    """

    def __init__(self, port: int, path: str, bodies: list[bytes], connections: int) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        self._requests = [head.encode() + b"%d\r\n\r\n" % len(body) + body for body in bodies]
        self._port, self._next = port, 0
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._due: dict[int, float] = {}
        self._read: dict[int, bytearray] = {}
        self._free: deque[int] = deque()
        for _ in range(connections):
            self._connect()

    def run(self, seconds: float, rate: float | None) -> Outcome:
        """Send for some seconds, at a rate of requests per second or, without one, as fast as answers come."""
        outcome, began = Outcome(), time.perf_counter()
        due = began
        while True:
            now = time.perf_counter()
            sending = due - began < seconds if rate else now - began < seconds
            while sending and self._free and (rate is None or due <= now):
                self._send(self._free.popleft(), due if rate else now)
                due += 1 / rate if rate else 0
                sending = due - began < seconds
            if not sending and not self._due:
                break
            wait = max(0.0, due - now) if sending and rate and self._free else 0.05
            for number, _ in self._poll.poll(min(wait, 0.05)):
                self._receive(number, outcome)
        outcome.seconds = time.perf_counter() - began
        return outcome

    def close(self) -> None:
        """Close all connections."""
        for connection in self._sockets.values():
            connection.close()
        self._poll.close()

    def _connect(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = connection.fileno()
        self._sockets[number], self._read[number] = connection, bytearray()
        self._poll.register(number, select.EPOLLIN)
        self._free.append(number)

    def _send(self, number: int, due: float) -> None:
        self._due[number] = due
        with suppress(OSError):  # reading will tell
            self._sockets[number].sendall(self._requests[self._next])
        self._next = (self._next + 1) % len(self._requests)

    def _receive(self, number: int, outcome: Outcome) -> None:
        try:
            part = self._sockets[number].recv(1 << 18)
        except OSError:
            part = b""
        if not part:
            self._broken(number, outcome)
            return
        read = self._read[number]
        read += part
        end = read.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(read[:end]).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(read) < end + 4 + length:
            return
        status = int(head[9:12])
        outcome.statuses[status] = outcome.statuses.get(status, 0) + 1
        due = self._due.pop(number)
        if status == 200:
            outcome.latency_ms.append((time.perf_counter() - due) * 1e3)
        read.clear()
        if b"connection: close" in head:
            self._replace(number)
        else:
            self._free.append(number)

    def _broken(self, number: int, outcome: Outcome) -> None:
        if self._due.pop(number, None) is not None:
            outcome.statuses[0] = outcome.statuses.get(0, 0) + 1
        else:
            self._free.remove(number)
        self._replace(number)

    def _replace(self, number: int) -> None:
        self._poll.unregister(number)
        self._sockets.pop(number).close()
        del self._read[number]
        self._connect()
