"""A connection of the server: HTTP as uvicorn reads it, with time limits for clients that stall."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from fllm_export.server.app import CLIENT
from fllm_export.server.batcher import Client
from fllm_export.server.failures import Refusal, failure_json
from fllm_export.server.options import ServerOptions

_HEAD_BYTES = 64 << 10


class Connection(HttpToolsProtocol):
    """One client. It is closed where its head, its body or its reading takes longer than the limits allow.

    A client that has sent its request and closed its sending side still gets its answer.

    Attributes:
        options: limits, the same for all connections of a process.
    """

    options = ServerOptions()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.ending = False
        # Time of time.monotonic() since which the client owes the rest of a head or of a body; None: it owes nothing.
        self.owes_since: float | None = time.monotonic()
        self._idle_since: float | None = self.owes_since
        self._in_head = True
        self._head_bytes = 0
        self._unread = (0, 0.0)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a client; where there are too many, the one that has been idle for longest goes."""
        super().connection_made(transport)
        if len(self.connections) > self.options.max_connections:
            idle = [other for other in self.connections if isinstance(other, Connection) and other.idle_since]
            if idle:
                min(idle, key=lambda other: other.idle_since or 0.0).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request, which may still wait for its pass."""
        super().connection_lost(exc)
        if self.cycle is not None:
            client = self.cycle.scope.get(CLIENT)
            if isinstance(client, Client):
                client.gone = True

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep a connection whose client sends nothing more until the last complete request is answered."""
        if not self._answering or self.cycle.more_body or self.scheme == "https":
            return False
        last = self.pipeline[0][0] if self.pipeline else self.cycle
        last.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Read what the client sent."""
        if self._in_head:
            self._head_bytes += len(data)
            if self.owes_since is None:
                self.owes_since = time.monotonic()
        super().data_received(data)
        if self._in_head and self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self._answer(431, "TooLarge", f"the head of the request has more than {_HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._in_head, self._head_bytes, self._idle_since = False, 0, None
        super().on_headers_complete()
        if self.ending:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Note that the client owes nothing until its next request."""
        super().on_message_complete()
        self._in_head, self.owes_since = True, None

    def on_response_complete(self) -> None:
        """Note that the client may take its time until the next request."""
        super().on_response_complete()
        if not self._answering:
            self._idle_since = time.monotonic()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._answer(400, "UsageError", "the request is not HTTP/1.1")

    def end(self) -> None:
        """Let the answer under way, or the next one, be the last."""
        self.ending = True
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.keep_alive = False

    def enforce(self, now: float) -> None:
        """Close the connection if the client has stalled for too long."""
        limit = self.options.client_timeout_s
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread[0] or unread == 0:
            self._unread = (unread, now)
        if now - self._unread[1] > limit:
            self.transport.abort()
        elif self.owes_since is not None and now - self.owes_since > limit:
            if self._in_head or self.cycle.response_started:
                self.transport.abort()
            else:
                self._write(408, "Timeout", f"the body was not complete after {limit:g} s")

    @property
    def idle_since(self) -> float | None:
        """Since when there has been no request on the connection; None while there is one."""
        return self._idle_since

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _answer(self, status: int, kind: str, found: str) -> None:
        if self._answering:
            # Bytes of an answer may be on their way already.
            self.transport.close()
        else:
            self._write(status, kind, found)

    def _write(self, status: int, kind: str, found: str) -> None:
        body = failure_json(Refusal(status, kind, found))
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
