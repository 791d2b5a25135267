"""What tests of the server share: applications inside the process, and servers as programs of their own."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .running import Running

DIM = 16
CLIENTS = 64


class Reply:
    """A response."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, dict(headers), body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def call(
    app: Any, method: str, path: str, body: bytes | list[bytes] = b"", headers: Mapping[str, str] | None = None
) -> Reply:
    """Send a request to an ASGI application, its body in the parts given."""
    parts = [body] if isinstance(body, bytes) else list(body)
    events = [{"type": "http.request", "body": part, "more_body": i + 1 < len(parts)} for i, part in enumerate(parts)]
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if events:
            return events.pop(0)
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    await app(scope, receive, send)
    head = {name.decode(): value.decode() for name, value in told[0]["headers"]}
    return Reply(told[0]["status"], head, b"".join(message.get("body", b"") for message in told[1:]))


def vectors(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Item vectors whose numbers JSON carries without loss."""
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def body(z: np.ndarray, **options: Any) -> bytes:
    """The body of a request about item vectors."""
    return json.dumps({"item_vectors": z.astype(float).tolist(), **options}).encode()


def malformed(number: int, good: bytes) -> bytes:
    """One of many bodies that no request may have: nested, cut short or random."""
    return (b"[" * 200, b'{"k":' * 70, good[: number % len(good)], os.urandom(60))[number % 4]


def turned(link: Path, target: Path) -> None:
    """Let a symbolic link lead elsewhere, in one step."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.replace(link)


class Program(Running):
    """A running `fllm-export serve` on a port of 127.0.0.1."""

    def __init__(self, source: Path, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", "fllm_export.cli", "serve", str(source), "--port", "0", "--threads", "1"]
        super().__init__([*command, *options], {**os.environ, **environment}, subprocess.DEVNULL)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()


class Health:
    """Asks for /healthz all the time, on new connections, and keeps how long each answer took."""

    def __init__(self, request: Callable[[str, str], Any]) -> None:
        self._request = request
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.times_s: list[float] = []
        self.statuses: set[int] = set()

    def __enter__(self) -> Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            began = time.perf_counter()
            try:
                self.statuses.add(self._request("GET", "/healthz").status)
            except OSError:
                self.statuses.add(0)
            self.times_s.append(time.perf_counter() - began)
            time.sleep(0.01)


class Senders:
    """Clients that note of every request whether it was sent while the server listened, and whether it was answered.

    A request counts as sent when its last byte was handed to the system over a connection that the server's system
    had accepted.
    """

    def __init__(self, port: int, requests: list[bytes], *, items: int, keep: bool) -> None:
        self.port, self.requests, self.items, self.keep = port, requests, items, keep
        self.listening = True
        self.answered = 0
        self.lost: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)

    def _send(self, number: int) -> None:
        request = self.requests[number % len(self.requests)]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while True:
            try:
                connection.request("POST", "/v1/topk", request)
                sent_while_listening = self.listening
            except OSError:
                return  # the socket is closed: nothing was sent
            try:
                response = connection.getresponse()
                answer = response.read()
                whole = response.status == 200 and len(json.loads(answer)["items"]) == self.items
            except (OSError, http.client.HTTPException, ValueError) as error:
                whole, answer = False, repr(error).encode()
            with self._lock:
                if whole:
                    self.answered += 1
                elif sent_while_listening:
                    self.lost.append(answer.decode())
            if not whole:
                return
            if not self.keep:
                connection.close()
