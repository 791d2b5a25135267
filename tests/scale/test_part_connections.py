"""Searches over connections: messages that are refused, keys, replicas that are lost and found again."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BundleError, UsageError, UserTable
from fllm_export.engines.base import Answer
from fllm_export.scale import part_fleet
from fllm_export.scale.frames import Address, Channel
from fllm_export.scale.part_fleet import PartFleet
from fllm_export.scale.part_host import OtherGeneration, PartHost, PartOptions, PartRequest, Reply
from fllm_export.scale.part_server import PartServer
from fllm_export.scale.sharded_engine import ShardedOptions
from fllm_export.scale.sharded_source import open_sharded_table
from fllm_export.scale.wire import PartFailed, WireError, read_reply, read_request, reply_bytes, request_bytes

ROWS = np.random.default_rng(1).standard_normal((2000, 64)).astype(np.float32)
Z = np.random.default_rng(2).standard_normal((3, 64)).astype(np.float32)
PARTS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = tmp_path_factory.mktemp("parts") / "t"
    UserTable.create(table, ROWS, shard_bytes=1 << 15)
    return table


class Machines:
    """Servers of all parts, which can be stopped and started."""

    def __init__(self, place: Path, replicas: int = 1) -> None:
        self.place = place
        self.servers = [[self.start(part) for _ in range(replicas)] for part in range(PARTS)]
        self.fleet = PartFleet([lambda part=part: self.found(part) for part in range(PARTS)])  # type: ignore[misc]

    def start(self, part: int) -> PartServer:
        return PartServer(PartHost(PartOptions(self.place, (part, PARTS), threads=1)), "127.0.0.1")

    def found(self, part: int) -> list[Address]:
        return [server.address for server in self.servers[part]]

    def close(self) -> None:
        self.fleet.close()
        for servers in self.servers:
            for server in servers:
                server.close()


@pytest.fixture
def machines(place: Path) -> Iterator[Machines]:
    made = Machines(place)
    yield made
    made.close()


class Host:
    """A host of a test, which says what it is told to."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.asked: list[PartRequest] = []

    def answer(self, asked: PartRequest) -> Reply:
        self.asked.append(asked)
        if isinstance(self.reply, type):
            raise self.reply("this part has a bug")
        return self.reply  # type: ignore[no-any-return]


def asked(place: Path, **choices: Any) -> PartRequest:
    table = UserTable.open(place, threads=1)
    request = table.request(len(Z), 10, None, "sample", [1 << 63, 2, 3], 0.0, filter=table.filter(deny=[5, 7]))
    return PartRequest(Z, replace(request, **choices), 0.25, 3)


def test_requests_and_replies_arrive_as_they_were(place: Path) -> None:
    sent = asked(place)
    header, body = request_bytes(sent)
    found = read_request(header, bytearray(body))
    np.testing.assert_array_equal(found.z, sent.z)
    np.testing.assert_array_equal(found.request.filter.user_ids, [5, 7])  # type: ignore[union-attr]
    assert found.request.filter.deny  # type: ignore[union-attr]
    assert replace(found.request, filter=None) == replace(sent.request, filter=None)
    assert (found.budget_s, found.generation) == (0.25, 3)
    answer = PartHost(PartOptions(place, (0, 1), threads=1)).answer(replace(sent, generation=1))
    header, body = reply_bytes(answer)
    again = read_reply(header, bytearray(body))
    for name, value in vars(answer).items():
        np.testing.assert_array_equal(getattr(again, name), value)
        assert np.asarray(getattr(again, name)).dtype == np.asarray(value).dtype
    for error in (UsageError("found", expected="this", fix="Do that"), BundleError("damaged")):
        header, body = reply_bytes(error)
        told = read_reply(header, bytearray(body))
        assert type(told) is type(error)
        assert str(told) == str(error)
    header, body = reply_bytes(OtherGeneration(7))
    assert read_reply(header, bytearray(body)) == OtherGeneration(7)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"shapes"', b'"shape"', "shapes"),
        (b"[3, 64]", b"[3, 65]", "bytes of arrays|ends before"),
        (b"[3, 64]", b"[9999999, 9999999]", "ends before z"),
        (b"[3, 64]", b"[-3, 64]", "integers"),
        (b"[3, 64]", b"[192]", "integers"),
        (b'"mode"', b'"mood"', "mode"),
        (b"{", b"[", "JSON"),
    ],
)
def test_messages_that_do_not_agree_are_refused(place: Path, old: bytes, new: bytes, message: str) -> None:
    header, body = request_bytes(asked(place))
    assert old in header
    with pytest.raises(WireError, match=message):
        read_request(header.replace(old, new, 1), bytearray(body))
    with pytest.raises(WireError, match="ends before"):
        read_request(header, bytearray(body[:-8]))


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = tmp_path_factory.mktemp("refined") / "t"
    UserTable.create(table, ROWS, shard_bytes=1 << 14, quant="int2", refine="int8", cluster="no")
    return table


def candidates_of(refined: Path) -> tuple[bytes, bytes]:
    host = PartHost(PartOptions(refined, (0, 1), threads=1))
    return reply_bytes(host.answer(replace(asked(refined, refine=0, refined_scores=True), generation=1)))


def test_candidates_arrive_with_both_their_scores(refined: Path) -> None:
    header, body = candidates_of(refined)
    found = read_reply(header, bytearray(body))
    assert isinstance(found, Answer)
    assert found.refined_scores is not None
    assert found.refined_scores.dtype == np.float32
    table = UserTable.open(refined, threads=1)
    expected = table.topk(Z, 10, mode="sample", seed=[1 << 63, 2, 3], filter=table.filter(deny=[5, 7]), refine=1)
    for item, users in enumerate(found.ids):
        place = {user: at for at, user in enumerate(users.tolist())}
        at = [place[user] for user in expected.user_ids[item].tolist()]
        np.testing.assert_array_equal(found.refined_scores[item, at], expected.scores[item])
        assert not np.array_equal(found.refined_scores[item, at], found.scores[item, at])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"candidates"', b'"answer"', "shapes"),
        (b'"candidates"', b'"guesses"', "no reply of the kind"),
        (b'"candidates"', b"[]", "unhashable|no reply of the kind"),
        (b'"refined_scores": [3, 10]', b'"refined_scores": [10, 3]', "refined_scores is .10, 3."),
        (b'"keys": [3, 10]', b'"keys": [5, 6]', "keys is .5, 6."),
        (b'"rows": 2000', b'"rows": true', "rows of an answer is True"),
        (b'"rows": 2000', b'"rows": 2e3', "rows of an answer is 2000.0"),
        (b'"generation": 1', b'"generation": "1"', "generation of an answer"),
        (b'"merge_ms": 0.0', b'"merge_ms": null', "merge_ms of an answer"),
    ],
)
def test_replies_that_do_not_agree_are_refused(refined: Path, old: bytes, new: bytes, message: str) -> None:
    header, body = candidates_of(refined)
    assert old in header
    with pytest.raises(WireError, match=message):
        read_reply(header.replace(old, new, 1), bytearray(body))


def test_a_router_before_refined_scores_is_refused(place: Path, refined: Path) -> None:
    header, body = request_bytes(asked(place))
    older = header.replace(b', "refined_scores": false', b"")
    assert older != header
    with pytest.raises(WireError, match="refined_scores"):
        read_request(older, bytearray(body))
    host = Host(OtherGeneration(1))
    server = PartServer(host, "127.0.0.1")  # type: ignore[arg-type]
    with socket.create_connection((server.address.host, server.address.port)) as stranger:
        stranger.settimeout(5.0)
        stranger.sendall(b"FLP1" + bytes(32))
        assert stranger.recv(1) == b""
    assert not host.asked
    server.close()


def test_refined_searches_by_connection_are_those_of_one_machine(refined: Path) -> None:
    machines = Machines(refined)
    try:
        table, whole = open_sharded_table(refined, machines.fleet), UserTable.open(refined, threads=1)
        for mode in ("topk", "sample"):
            found, expected = table.topk(Z, 40, mode=mode, seed=3), whole.topk(Z, 40, mode=mode, seed=3)
            for name in ("user_ids", "scores", "coverage", "complete", "exact"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    finally:
        machines.close()


def test_searches_by_connection_are_those_of_one_machine(place: Path, machines: Machines) -> None:
    table, whole = open_sharded_table(place, machines.fleet), UserTable.open(place, threads=1)
    for mode in ("topk", "sample"):
        found, expected = table.topk(Z, 40, mode=mode, seed=3), whole.topk(Z, 40, mode=mode, seed=3)
        for name in ("user_ids", "scores", "coverage", "complete", "exact"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    with pytest.raises(BundleError, match="score"):
        table.topk(np.full((1, 64), 3e38, np.float32), 5)
    expected = whole.topk(Z, 9)
    answers: list[bool] = []

    def search() -> None:
        for _ in range(20):
            answers.append(np.array_equal(table.topk(Z, 9).user_ids, expected.user_ids))

    threads = [threading.Thread(target=search) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert answers == [True] * 80


def test_a_replaced_part_is_found_again(place: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_fleet, "_PAUSE_S", 0.0)
    table = open_sharded_table(place, machines.fleet, ShardedOptions(retries=0))
    assert table.topk(Z, 5).complete.all()
    machines.servers[1][0].close()
    lost = table.topk(Z, 5)
    assert not lost.complete.any()
    assert (lost.coverage < 1).all()
    machines.servers[1] = []
    assert not table.topk(Z, 5, budget_ms=50).complete.any()  # it does not wait longer than its budget
    later = threading.Timer(0.5, lambda: machines.servers[1].append(machines.start(1)))
    later.start()
    assert table.topk(Z, 5).complete.all()  # it waits until the part is there again
    later.join()


def test_another_replica_takes_over(place: Path) -> None:
    machines = Machines(place, replicas=2)
    try:
        table = open_sharded_table(place, machines.fleet, ShardedOptions(retries=1))
        assert table.topk(Z, 5).complete.all()
        machines.servers[2].pop(0).close()
        assert all(table.topk(Z, 5).complete.all() for _ in range(6))
    finally:
        machines.close()


def test_replicas_take_turns(place: Path) -> None:
    hosts = [Host(OtherGeneration(number)) for number in range(2)]
    servers = [PartServer(host, "127.0.0.1") for host in hosts]  # type: ignore[arg-type]
    fleet = PartFleet([lambda: [server.address for server in servers]])
    found = [fleet.ask(0, asked(place)).result(timeout_s=20) for _ in range(6)]
    assert sorted(reply.found for reply in found) == [0, 0, 0, 1, 1, 1]  # type: ignore[union-attr]
    fleet.close()


def test_whoever_does_not_know_the_key_is_no_part_and_no_router(place: Path) -> None:
    host = Host(OtherGeneration(1))
    server = PartServer(host, "127.0.0.1")  # type: ignore[arg-type]
    wrong = replace(server.address, key=bytes(32))
    with pytest.raises(WireError, match="does not know its key"):
        Channel.to(wrong, 5.0)
    with socket.create_connection((wrong.host, wrong.port)) as stranger:
        stranger.settimeout(5.0)
        stranger.sendall(b"FLP2" + bytes(32))  # a hello, and then no proof
        stranger.recv(64, socket.MSG_WAITALL)
        stranger.sendall(bytes(32))
        channel = b"FLP2" + bytes(12)
        stranger.sendall(channel)
        assert stranger.recv(1) == b""
    assert not host.asked
    server.close()


def test_a_reply_that_comes_too_late_meets_no_other_request(place: Path) -> None:
    class Slow(Host):
        def answer(self, asked: PartRequest) -> Reply:
            if not self.asked:
                self.asked.append(asked)
                time.sleep(0.5)
                return OtherGeneration(1)
            return OtherGeneration(2)

    server = PartServer(Slow(None), "127.0.0.1")  # type: ignore[arg-type]
    fleet = PartFleet([lambda: [server.address]])
    with pytest.raises(TimeoutError):
        fleet.ask(0, asked(place)).result(timeout_s=0.2)
    assert fleet.ask(0, asked(place)).result(timeout_s=20) == OtherGeneration(2)
    server.close()


def test_a_bug_in_a_part_loses_the_part_and_keeps_the_connection(place: Path) -> None:
    host = Host(ZeroDivisionError)
    server = PartServer(host, "127.0.0.1")  # type: ignore[arg-type]
    fleet = PartFleet([lambda: [server.address]])
    with pytest.raises(PartFailed, match="ZeroDivisionError: this part has a bug"):
        fleet.ask(0, asked(place)).result(timeout_s=20)
    host.reply = OtherGeneration(4)
    assert fleet.ask(0, asked(place)).result(timeout_s=20) == OtherGeneration(4)
    server.close()


def test_a_part_that_nobody_finds_is_lost(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(part_fleet, "_FIND_S", 0.5)

    def nobody() -> list[Address]:
        raise ConnectionError("Ray does not answer")

    fleet = PartFleet([nobody])
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="no replica"):
        fleet.ask(0, asked(place)).result(timeout_s=20)
    assert time.monotonic() - began < 10
    assert sum("are not found: ConnectionError: Ray does not" in record.message for record in caplog.records) == 1
    with pytest.raises(TimeoutError, match="no replica of it is up"):
        PartFleet([nobody]).ask(0, asked(place)).result(timeout_s=0.05)


def test_requests_that_wait_for_an_address_lose_that_time(place: Path) -> None:
    host = Host(OtherGeneration(1))
    server = PartServer(host, "127.0.0.1")  # type: ignore[arg-type]

    def late() -> list[Address]:
        time.sleep(0.1)
        return [server.address]

    assert PartFleet([late]).ask(0, asked(place)).result(timeout_s=20) == OtherGeneration(1)
    assert host.asked[0].budget_s is not None
    assert host.asked[0].budget_s <= 0.15
    server.close()
