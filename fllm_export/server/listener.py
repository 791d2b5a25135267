"""The process: its socket, its signals, and an end that loses no request."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from fllm_export.errors import UsageError
from fllm_export.server.app import create_app
from fllm_export.server.connection import Connection
from fllm_export.server.options import ListenOptions, ServerOptions
from fllm_export.server.service import Service

Say = Callable[[str], None]

_BACKLOG = 2048
_LINGER_S = 0.5
_SWEEP_S = 0.25
_POLL_S = 0.02


class Listener(uvicorn.Server):
    """Uvicorn with another beginning and another end.

    Args:
        config: of uvicorn.
        service: what answers; it is loaded while the server listens already.
        say: told what a person wants to know.
    """

    def __init__(self, config: uvicorn.Config, service: Service, say: Say) -> None:
        super().__init__(config)
        self.failure: Exception | None = None
        self._service = service
        self._say = say
        self._tasks: set[asyncio.Task[Any]] = set()
        connections = self.server_state.connections
        service.metrics.gauge("fllm_connections", "Open connections.", lambda: float(len(connections)))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at SIGTERM and SIGINT, open again at SIGHUP; the signal is not raised again, as uvicorn does."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self._reload()))
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and open what is served meanwhile."""
        await super().startup(sockets)
        self._begin(self._sweep())
        self._begin(self._load())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer every request that was sent before the listening socket closed, then close everything."""
        self._service.closing = True
        self._say("ending: requests that were sent are answered")
        await self._close_sockets(sockets or [])
        for connection in self._connections():
            connection.end()
        # A request that was sent before may still be on its way over a connection that was kept open.
        await asyncio.sleep(_LINGER_S)
        for connection in self._connections():
            connection.shutdown()
        until = time.monotonic() + self._service.options.stop_timeout_s
        while self.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(_POLL_S)
        for connection in self._connections():
            connection.transport.abort()
        for task in self._tasks:
            task.cancel()
        await self._service.close()
        await self.lifespan.shutdown()

    async def _close_sockets(self, sockets: list[socket.socket]) -> None:
        """Take every connection that the system has accepted, then stop listening.

        The event loop closes its sockets in its next round; what arrives until then is taken through a second
        descriptor, after whose last `accept` the socket is closed without delay.
        """
        kept = [listening.dup() for listening in sockets]
        for server in self.servers:
            server.close()
        for listening in sockets:
            listening.close()
        await asyncio.sleep(_POLL_S)
        taken = []
        for listening in kept:
            listening.setblocking(False)
            try:
                while True:
                    taken.append(listening.accept()[0])
            except BlockingIOError:
                listening.close()
        for connection in taken:
            self._begin(self._attach(connection))
        await asyncio.sleep(0)

    async def _attach(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            lambda: Connection(self.config, self.server_state, self.lifespan.state), connection, ssl=self.config.ssl
        )

    def _connections(self) -> list[Connection]:
        return [found for found in self.server_state.connections if isinstance(found, Connection)]

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        self.should_exit = True

    async def _load(self) -> None:
        try:
            await self._service.load()
        except Exception as error:
            self.failure = error
            self.should_exit = True
        else:
            self._say("ready")

    async def _reload(self) -> None:
        # The service logs how it ended; there is nobody to answer.
        with suppress(Exception):
            await self._service.reload()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for connection in self._connections():
                connection.enforce(now)


class Log(logging.Handler):
    """Sends remarks of the server to ``say``, and failures to stderr even where remarks are not wanted."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if record.levelno < logging.WARNING:
            self._say(record.getMessage())
        else:
            sys.stderr.write(f"fllm-export: {record.getMessage()}\n")
            sys.stderr.flush()


def bound(listen: ListenOptions) -> socket.socket:
    """Return a socket that has the address, and listens.

    Raises:
        UsageError: the address is in use or not one of this machine.
    """
    try:
        family = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((listen.host, listen.port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"the server cannot listen on {listen.host}:{listen.port} ({error})",
            expected="a free port of this machine",
            fix="Choose another --port, or 0 for any free one",
        ) from error


def listen(
    make_service: Callable[[], Service], where: ListenOptions, options: ServerOptions, say: Say, announce: Say
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        make_service: makes the service, inside the event loop.
        where: address.
        options: limits.
        say: told what a person wants to know.
        announce: told the URL, once the server listens.

    Raises:
        UsageError: the address is in use, or the certificate cannot be read.
        FllmError: what is to be served cannot be opened, or does not answer.
    """
    Connection.options = options
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    log = logging.getLogger("fllm_export.server")
    log.setLevel(logging.INFO)
    log.addHandler(Log(say))
    listening = bound(where)

    async def run() -> Exception | None:
        service = make_service()
        listener = Listener(_config(create_app(service), where, options), service, say)
        port = listening.getsockname()[1]
        say(f"listening on {where.host}:{port}")
        host = f"[{where.host}]" if ":" in where.host else where.host
        announce(f"{'http' if where.certificate is None else 'https'}://{host}:{port}/")
        await listener.serve([listening])
        return listener.failure

    import uvloop

    failure = uvloop.run(run())
    if failure is not None:
        raise failure


def _config(app: Any, where: ListenOptions, options: ServerOptions) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=max(1, round(options.keep_alive_s)),
        ssl_certfile=where.certificate,
        ssl_keyfile=where.key,
    )
    try:
        config.load()
    except OSError as error:
        raise UsageError(
            f"the certificate {where.certificate} or its key cannot be read ({error})", expected="PEM files"
        ) from error
    return config
