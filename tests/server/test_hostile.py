"""Clients that stall, break off or send nonsense: the server answers everyone else meanwhile."""

from __future__ import annotations

import gzip
import os
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .serving import Health, Program, body, malformed, vectors

BODY = body(vectors(1), k=3)
HEAD = b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
QUIET_S = 0.1


def connected(program: Program) -> socket.socket:
    return socket.create_connection(("127.0.0.1", program.port), timeout=30)


def everything(connection: socket.socket) -> bytes:
    """Return what the server sends until it closes; a reset ends it as well."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionError:
        pass
    return found


@contextmanager
def healthy(program: Program) -> Iterator[None]:
    """Check that health is answered all the time, as fast as the machine lets a process of its own be."""
    with Health(program.request) as health:
        yield
    assert health.statuses == {200}
    # The largest time on a machine that others use says how busy it is.
    assert statistics.median(health.times_s) < QUIET_S


def test_clients_that_stall_hold_nothing_up_and_are_cut_off(program: Program) -> None:
    with ExitStack() as stack, healthy(program):
        heads = [stack.enter_context(connected(program)) for _ in range(30)]
        bodies = [stack.enter_context(connected(program)) for _ in range(30)]
        for connection in heads:
            connection.sendall(b"POST /v1/topk HTTP/1.1\r\nHost: ")
        for connection in bodies:
            connection.sendall(HEAD + BODY[:20])
        began = time.monotonic()
        while time.monotonic() - began < 1.0:
            for connection in heads:
                connection.sendall(b"x")  # one byte now and then does not count
            assert program.request("POST", "/v1/topk", BODY).status == 200
            time.sleep(0.1)
        for connection in bodies:
            assert everything(connection).startswith(b"HTTP/1.1 408")
        for connection in heads:
            assert everything(connection) == b""
        assert time.monotonic() - began < 8


def connections_of(program: Program) -> float:
    """Return how many connections the server has, this question's and perhaps that for health included."""
    lines = program.request("GET", "/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("fllm_connections "))


def test_clients_that_do_not_read_are_cut_off(program: Program) -> None:
    request = body(vectors(60), k=3000)
    head = b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(request)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", program.port))
        connection.sendall(head + request)
        assert connection.recv(12) == b"HTTP/1.1 200"
        until = time.monotonic() + 20
        while connections_of(program) > 1 and time.monotonic() < until:
            time.sleep(0.2)
        # What the system had taken over comes still; the end of the answer does not.
        found = everything(connection)
    assert len(found) < 60 * 3000 * 20


def test_a_client_that_closed_its_sending_side_is_answered(program: Program) -> None:
    with connected(program) as connection:
        connection.sendall(HEAD + BODY)
        connection.shutdown(socket.SHUT_WR)
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"user_id" in answer
    with connected(program) as connection:
        connection.sendall(HEAD + BODY[:-5])
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b""


def test_requests_sent_at_once_are_answered_in_their_order(program: Program) -> None:
    with connected(program) as connection:
        requests = [body(vectors(1, seed), k=3) for seed in range(20)]
        head = b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(b"".join(head % len(request) + request for request in requests))
        connection.shutdown(socket.SHUT_WR)
        found = everything(connection)
    assert found.count(b"HTTP/1.1 200") == 20
    first = [part.split(b'"user_id":')[1].split(b",")[0] for part in found.split(b"HTTP/1.1 200")[1:]]
    assert len(set(first)) > 10
    alone = [program.request("POST", "/v1/topk", request).json["items"][0]["users"][0] for request in requests]
    assert [int(user) for user in first] == [user["user_id"] for user in alone]


def broken() -> Iterator[bytes]:
    """Requests that no client of good will sends."""
    yield b"\r\n\r\n"
    yield b"POST /v1/topk\r\n\r\n"
    yield b"POST /v1/topk HTTP/1.1\r\nContent-Length: -5\r\n\r\n"
    yield b"POST /v1/topk HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"
    yield b"POST /v1/topk HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    yield b"POST /v1/topk HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    yield b"POST /v1/topk HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n"
    yield b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000
    yield b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n"
    yield b"GET / HTTP/9.9\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100
    yield b"GET /healthz HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    yield b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{}}"
    for number in range(12):
        yield os.urandom(50 * (number + 1))


def test_what_is_not_http(program: Program) -> None:
    with healthy(program):
        for raw in broken():
            with connected(program) as connection:
                try:
                    connection.sendall(raw)
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    continue
                answer = everything(connection)
                assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), answer[:100]


@pytest.mark.slow
def test_ten_thousand_malformed_requests(program: Program) -> None:
    with healthy(program):
        for number in range(10_000):
            assert program.request("POST", "/v1/topk", malformed(number, BODY)).status == 400
    assert program.request("POST", "/v1/topk", BODY).status == 200


def test_deep_brackets_and_bombs(program: Program) -> None:
    with healthy(program):
        for bad in (
            b"[" * 200_000,
            b'{"k":' * 40_000,
            b'{"item_vectors": ' + b"[" * 199_000,
            b'"' + b"\\u0041" * 30_000,
        ):
            found = program.request("POST", "/v1/topk", bad)
            assert (found.status, found.json["error"]["kind"]) == (400, "UsageError")
        bomb = gzip.compress(b"[" * 100_000_000, 1)[:300_000]
        found = program.request("POST", "/v1/topk", bomb, {"Content-Encoding": "gzip"})
        assert (found.status, found.json["error"]["kind"]) == (415, "Unsupported")
        assert program.request("POST", "/v1/topk", b"x" * 400_001).status == 413
        # A body without an end, in chunks.
        with connected(program) as connection:
            connection.sendall(b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(100):
                    connection.sendall(b"%x\r\n" % 65536 + b"a" * 65536 + b"\r\n")
            except ConnectionError:
                pass
            assert connection.recv(12) == b"HTTP/1.1 413"


def test_more_connections_than_allowed_cost_the_idle_ones(program: Program) -> None:
    with ExitStack() as stack, healthy(program):
        made = [stack.enter_context(connected(program)) for _ in range(140)]
        time.sleep(0.3)
        # The first ones went; the newest, and requests of others, are served.
        assert everything(made[0]) == b""
        made[-1].sendall(HEAD + BODY)
        assert made[-1].recv(12) == b"HTTP/1.1 200"
        assert program.request("POST", "/v1/topk", BODY).status == 200


def test_a_request_whose_client_went_is_not_searched(users: Path) -> None:
    program = Program(users, "--max-wait-ms", "700", "--max-batch", "1000")
    program.wait_for("ready")
    try:
        for _ in range(5):
            connection = connected(program)
            connection.sendall(HEAD + BODY)
            time.sleep(0.05)
            # Zero seconds to linger: the connection is reset, as that of a process that was killed can be.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            connection.close()
        assert program.request("POST", "/v1/topk", BODY).status == 200
        lines = program.request("GET", "/metrics").body.decode().splitlines()
        assert "fllm_dropped_requests_total 5.0" in lines
        assert "fllm_items_total 1.0" in lines
    finally:
        assert program.stop() == 0


def test_tls(users: Path, tmp_path: Path) -> None:
    import shutil
    import ssl
    import subprocess
    import urllib.request

    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    program = Program(users, "--tls-certificate", str(certificate), "--tls-key", str(key))
    program.wait_for("ready")
    try:
        context: Any = ssl.create_default_context(cafile=str(certificate))
        url = f"https://127.0.0.1:{program.port}/readyz"
        with urllib.request.urlopen(url, context=context, timeout=30) as response:
            assert response.status == 200
    finally:
        assert program.stop() == 0
