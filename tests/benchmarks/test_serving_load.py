"""The load generator counts what a server answers, and charges it for requests that had to wait."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.serving.load import Client

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FULL = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def answering(reply: Callable[[int], tuple[float, bytes]]) -> Iterator[int]:
    """A server that waits and replies as it is told for each request of a connection."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            number = 0
            while connection.recv(65536):
                wait_s, answer = reply(number)
                time.sleep(wait_s)
                if not answer:
                    return
                connection.sendall(answer)
                number += 1

    def accept() -> None:
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def test_answers_are_counted_by_status() -> None:
    with answering(lambda number: (0.0, FULL if number % 2 else OK)) as port:
        client = Client(port, "/x", [b"{}"], 2)
        outcome = client.run(0.3, 100)
        client.close()
    assert outcome.statuses.keys() == {200, 429}
    assert sum(outcome.statuses.values()) in (30, 31)
    assert len(outcome.latency_ms) == outcome.statuses[200]


def test_latency_counts_from_the_time_at_which_a_request_was_due() -> None:
    # One connection, and an answer takes 0.1 s: of requests due every 0.02 s, each waits longer than the last.
    with answering(lambda _: (0.1, OK)) as port:
        client = Client(port, "/x", [b"{}"], 1)
        outcome = client.run(0.2, 50)
        client.close()
    assert outcome.statuses == {200: 10} or outcome.statuses == {200: 11}
    assert outcome.latency_ms == sorted(outcome.latency_ms)
    assert outcome.latency_ms[-1] > 700


def test_broken_connections_are_counted_and_replaced() -> None:
    with answering(lambda number: (0.0, b"" if number == 2 else OK)) as port:
        client = Client(port, "/x", [b"{}"], 1)
        outcome = client.run(0.3, None)
        client.close()
    assert outcome.statuses[0] > 1
    assert outcome.statuses[200] >= 2 * outcome.statuses[0] - 2
