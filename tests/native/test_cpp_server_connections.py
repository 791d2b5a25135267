"""Connections to the example server: stalled clients hold nothing up, and its end loses no request."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fllm_export.bundle.bundle import Bundle

from ..server.serving import CLIENTS, Health, Reply, Senders, malformed
from .cpp_server import Server

BODY = json.dumps({"text": "a paper", "k": 3}).encode()
REQUEST = b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def server(server_program: Path, tiny_bundle: Bundle, onnxruntime_library: str) -> Iterator[Server]:
    made = Server(server_program, tiny_bundle.path, onnxruntime_library)
    made.wait_for("ready")
    yield made
    assert made.stop() == 0


def everything(connection: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            answer += part
    return answer


def health_of(server: Server) -> Health:
    return Health(lambda method, path: Reply(server.request(method, path)[0], {}, b""))


def test_termination_lets_requests_finish(server_program: Path, tiny_bundle: Bundle, onnxruntime_library: str) -> None:
    server = Server(server_program, tiny_bundle.path, onnxruntime_library)
    server.wait_for("ready")
    body = json.dumps({"text": "a paper", "k": 3}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        time.sleep(0.3)  # until the request is under way
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body)
        connection.settimeout(30)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"user_id" in answer
    assert server.process.wait(30) == 0


def end_under_load(server: Server, *, keep: bool, pause_s: float = 0.4) -> Senders:
    server.wait_for("ready")
    senders = Senders(server.port, [BODY], items=1, keep=keep)
    senders.start()
    time.sleep(pause_s)
    senders.listening = False
    assert server.stop() == 0
    senders.join()
    return senders


@pytest.mark.parametrize("keep", [True, False], ids=["kept connections", "new connections"])
def test_every_request_of_many_clients_is_answered_at_the_end(
    server_program: Path, tiny_bundle: Bundle, onnxruntime_library: str, keep: bool
) -> None:
    senders = end_under_load(Server(server_program, tiny_bundle.path, onnxruntime_library), keep=keep)
    assert senders.lost == []
    assert senders.answered > CLIENTS


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False], ids=["kept connections", "new connections"])
def test_twenty_ends(server_program: Path, tiny_bundle: Bundle, onnxruntime_library: str, keep: bool) -> None:
    for number in range(20):
        server = Server(server_program, tiny_bundle.path, onnxruntime_library)
        assert end_under_load(server, keep=keep, pause_s=0.2 + 0.01 * number).lost == []


def test_connections_that_the_system_alone_accepted_are_answered(
    server_program: Path, tiny_bundle: Bundle, onnxruntime_library: str
) -> None:
    server = Server(server_program, tiny_bundle.path, onnxruntime_library, "--workers", "2")
    server.wait_for("ready")
    server.process.send_signal(signal.SIGSTOP)
    # More than a backlog of 5 holds.
    made = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(CLIENTS)]
    for connection in made:
        connection.sendall(REQUEST)
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGCONT)
    for connection in made:
        assert everything(connection).startswith(b"HTTP/1.1 200")
        connection.close()
    assert server.process.wait(30) == 0


def test_stalled_clients_hold_nothing_up_and_are_cut_off(
    server_program: Path, tiny_bundle: Bundle, onnxruntime_library: str
) -> None:
    options = ("--workers", "2", "--client-timeout-ms", "1500", "--max-connections", "80")
    server = Server(server_program, tiny_bundle.path, onnxruntime_library, *options)
    server.wait_for("ready")
    health = health_of(server)
    with contextlib.ExitStack() as stack:
        stack.enter_context(health)
        made = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)) for _ in range(60)
        ]
        began = time.monotonic()
        for number, connection in enumerate(made):
            # Idle ones, heads without an end, bodies without an end.
            connection.sendall((b"", b"POST /v1/topk HTT", REQUEST[:-5])[number % 3])
        while time.monotonic() - began < 1.0:
            for connection in made[1::3]:
                connection.sendall(b"x")
            assert server.request("POST", "/v1/reload")[0] == 200
            server.ask(text="a paper", k=3)
            time.sleep(0.05)
        for number, connection in enumerate(made):
            assert everything(connection).startswith(b"HTTP/1.1 400" if number % 3 == 2 else b"")
        assert time.monotonic() - began < 10
        # More connections than allowed: the oldest without a request go.
        more = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)) for _ in range(120)
        ]
        assert everything(more[0]) == b""
        more[-1].sendall(REQUEST)
        assert more[-1].recv(12) == b"HTTP/1.1 200"
    assert health.statuses == {200}
    assert float(np.median(health.times_s)) < 0.1
    assert server.stop() == 0


@contextlib.contextmanager
def large_stacks(size: int) -> Iterator[None]:
    """Let each thread of programs that are started meanwhile reserve so much of its address space, in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard not in (resource.RLIM_INFINITY, -1) and hard < size:
        pytest.skip("stacks may not be large here")
    resource.setrlimit(resource.RLIMIT_STACK, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))


def test_connections_are_answered_where_no_further_thread_can_begin(
    server_program: Path, tiny_bundle: Bundle, onnxruntime_library: str
) -> None:
    """A limit on the number of threads does not bind root; a limit on the room for their stacks does."""
    stack = 1 << 30
    with large_stacks(stack):
        server = Server(server_program, tiny_bundle.path, onnxruntime_library)
    server.wait_for("ready")
    server.ask(text="a paper", k=3)
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2 * stack + stack // 2
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (most, most))
    with contextlib.ExitStack() as open_ones:
        for _ in range(12):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        for _ in range(5):
            server.ask(text="a paper", k=3)
    assert server.stop() == 0


def test_half_closed_pipelined_and_compressed_requests(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(REQUEST * 5)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).count(b"HTTP/1.1 200") == 5
    compressed = REQUEST.replace(b"Host: x", b"Content-Encoding: gzip")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(compressed)
        assert connection.recv(12) == b"HTTP/1.1 415"


@pytest.mark.slow
def test_ten_thousand_malformed_requests(server: Server) -> None:
    with health_of(server) as health:
        for number in range(10_000):
            assert server.request("POST", "/v1/topk", malformed(number, BODY))[0] == 400
    assert health.statuses == {200}
    # The largest time on a machine that others use says how busy it is.
    assert float(np.median(health.times_s)) < 0.1
    server.ask(text="a paper", k=3)


def test_deep_brackets(server: Server) -> None:
    with health_of(server) as health:
        for bad in (b"[" * 200_000, b'{"k":' * 40_000, b'{"item_vectors": ' + b"[" * 199_000):
            assert server.request("POST", "/v1/topk", bad)[0] == 400
    assert health.statuses == {200}


def test_reloading_needs_no_body_and_readiness_names_the_generation(server: Server) -> None:
    began = time.monotonic()
    assert server.request("POST", "/v1/reload")[0] == 200
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 200")
    assert time.monotonic() - began < 5
    assert server.request("POST", "/v1/reload", b'{"path": "/tmp"}')[0] == 400
    assert json.loads(server.request("GET", "/readyz")[1]) == {"ready": True, "generation": 1}
    assert json.loads(server.request("GET", "/healthz")[1]) == {"alive": True}


def test_too_many_requests_are_refused(server_program: Path, tiny_bundle: Bundle, onnxruntime_library: str) -> None:
    server = Server(
        server_program,
        tiny_bundle.path,
        onnxruntime_library,
        "--workers",
        "1",
        "--max-waiting",
        "1",
        "--max-items",
        "200",
    )
    server.wait_for("ready")
    body = json.dumps({"texts": ["a long paper on graphs and genes"] * 200, "k": 400}).encode()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: server.request("POST", "/v1/topk", body), range(32)))
    assert {status for status, _ in found} == {200, 429}
    refused = next(text for status, text in found if status == 429)
    assert json.loads(refused)["error"]["kind"] == "Overloaded"
    assert server.stop() == 0
