"""A server that moves between tables under load: no request fails, and every answer is of one table."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import Runtime, UserTable, publish
from fllm_export.bundle.bundle import Bundle

from .serving import DIM, Program, body, turned, vectors

CLIENTS = 32


@pytest.fixture
def places(tmp_path: Path) -> Any:
    """A link to a table of generation 1, and two tables whose answers differ in every user."""
    for number in (1, 2):
        rows = np.random.default_rng(number).standard_normal((2000, DIM)).astype(np.float32)
        ids = np.arange(2000) + 10_000 * number
        UserTable.create(tmp_path / f"table{number}", rows, ids=ids, quant="int8", generation=number)
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "table1")
    return link, (tmp_path / "table1", tmp_path / "table2")


class Clients:
    """Clients that ask on kept connections until they are told to stop, each answer checked against its generation."""

    def __init__(self, port: int, tables: tuple[Path, Path]) -> None:
        self.z = [vectors(1 + i % 3, i) for i in range(8)]
        self.wanted = {}
        for path in tables:
            table = UserTable.open(path, threads=1)
            answers = [table.topk(z, 5) for z in self.z]
            self.wanted[table.generation] = [(found.user_ids.tolist(), found.scores.tolist()) for found in answers]
        self.port = port
        self.stop = threading.Event()
        self.failed: list[str] = []
        self.seen: dict[int, int] = {generation: 0 for generation in self.wanted}
        self.times_s: list[tuple[float, float]] = []

    def ask_on(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        which = number
        while not self.stop.is_set():
            which = (which + 1) % len(self.z)
            began = time.perf_counter()
            try:
                connection.request("POST", "/v1/topk", body(self.z[which], k=5))
                response = connection.getresponse()
                found = json.loads(response.read())
                self.check(which, response.status, found)
            except OSError as error:
                self.failed.append(repr(error))
                return
            self.times_s.append((began, time.perf_counter() - began))

    def check(self, which: int, status: int, found: Any) -> None:
        if status != 200:
            self.failed.append(str(found))
            return
        users = [[user["user_id"] for user in item["users"]] for item in found["items"]]
        scores = [[user["score"] for user in item["users"]] for item in found["items"]]
        if (users, scores) != self.wanted[found["generation"]][which]:
            self.failed.append(f"mixed: {found}")
        self.seen[found["generation"]] += 1


def swap_under_load(program: Program, link: Path, tables: tuple[Path, Path], swaps: int, pause_s: float) -> Clients:
    clients = Clients(program.port, tables)
    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(clients.ask_on, number) for number in range(CLIENTS)]
        try:
            time.sleep(0.3)
            for number in range(swaps):
                turned(link, tables[(number + 1) % 2])
                found = program.request("POST", "/v1/reload")
                assert found.json == {"generation": (number + 1) % 2 + 1}
                time.sleep(pause_s)
        finally:
            clients.stop.set()
        for future in asking:
            future.result(60)
    return clients


def mapped(process: int, name: str) -> bool:
    return f"/{name}/" in Path(f"/proc/{process}/maps").read_text()


def test_swaps_under_load(places: Any) -> None:
    link, tables = places
    program = Program(link)
    program.wait_for("ready")
    try:
        clients = swap_under_load(program, link, tables, 15, 0.05)
        assert clients.failed == []
        assert min(clients.seen.values()) > CLIENTS
        # What was replaced is not mapped any more once its last request is answered.
        program.request("POST", "/v1/topk", body(vectors(1), k=5))
        assert mapped(program.process.pid, "table2")
        assert not mapped(program.process.pid, "table1")
    finally:
        assert program.stop() == 0


@pytest.mark.slow
def test_two_hundred_swaps(places: Any) -> None:
    link, tables = places
    program = Program(link)
    program.wait_for("ready")
    try:
        clients = swap_under_load(program, link, tables, 200, 0.05)
    finally:
        assert program.stop() == 0
    assert clients.failed == []
    assert min(clients.seen.values()) > 1000


def test_a_signal_reloads_and_a_failure_changes_nothing(places: Any) -> None:
    link, tables = places
    program = Program(link, FLLM_SERVER_TOKEN="0123456789abcdef")
    program.wait_for("ready")
    headers = {"authorization": "Bearer 0123456789abcdef"}
    try:
        turned(link, tables[1])
        program.process.send_signal(signal.SIGHUP)
        program.wait_for("reloaded: generation 2")
        turned(link, tables[0].parent)
        program.process.send_signal(signal.SIGHUP)
        assert "is not a bundle or a user table" in program.wait_for("what was served stays")
        nowhere = json.dumps({"path": "/none"}).encode()
        assert program.request("POST", "/v1/reload", nowhere, headers).status == 500
        program.wait_for("reload of /none failed, what was served stays")
        found = program.request("POST", "/v1/topk", body(vectors(1), k=5), headers)
        assert found.json["generation"] == 2
        path = json.dumps({"path": str(tables[0])}).encode()
        assert program.request("POST", "/v1/reload", path, headers).json == {"generation": 1}
        assert program.request("GET", "/metrics", None, headers).body.count(b"fllm_reloads_total 2.0") == 1
    finally:
        assert program.stop() == 0


def test_a_successor_shares_the_encoder_and_leaves_the_first_as_it_is(
    tiny_bundle: Bundle, tmp_path: Path, item_texts: list[str]
) -> None:
    import shutil

    for name in ("one", "two"):
        shutil.copytree(tiny_bundle.path, tmp_path / name)
    first = Runtime.open(tmp_path / "one", threads=1)
    before = first.topk(item_texts[:2], 5)
    shutil.rmtree(tmp_path / "two" / "users")
    UserTable.create(tmp_path / "two" / "users", vectors(300, 3), generation=9)
    second = first.successor(tmp_path / "two")
    assert second._opened.encoder is first._opened.encoder
    assert (second.users.generation, first.users.generation) == (9, before.generation)
    np.testing.assert_array_equal(first.topk(item_texts[:2], 5).scores, before.scores)
    # At the same path, too, the first keeps what it has.
    UserTable.create(tmp_path / "three", vectors(400, 4))
    publish(tmp_path / "three", tmp_path / "one" / "users")
    third = first.successor()
    assert third.users.generation > first.users.generation
    np.testing.assert_array_equal(first.topk(item_texts[:2], 5).scores, before.scores)
