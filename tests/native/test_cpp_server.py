"""The example server, built from an installed prefix and asked: it answers as the Python runtime does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import Runtime, UserTable
from fllm_export.bundle.bundle import Bundle

from ..server.serving import turned
from .cpp_server import Server, assert_same

DIM = 16


@pytest.fixture(scope="module")
def server(server_program: Path, tiny_bundle: Bundle, onnxruntime_library: str) -> Iterator[Server]:
    made = Server(
        server_program, tiny_bundle.path, onnxruntime_library, "--max-items", "20", "--max-body-bytes", "100000"
    )
    made.wait_for("ready")
    yield made
    assert made.stop() == 0


@pytest.mark.parametrize("options", [{"k": 5}, {"k": 400}, {"k": 9, "mode": "sample", "seed": 3}, {"budget_ms": 1e9}])
def test_texts(options: dict[str, Any], server: Server, runtime: Runtime, item_texts: list[str]) -> None:
    texts = item_texts[:6]
    found = server.ask(texts=texts, **options)
    assert_same(found, runtime.topk(texts, **options).to_dict())
    assert found["timings_ms"].keys() == {"tokenise", "encode", "scan", "merge"}
    assert_same(server.ask(text=texts[0], **options), runtime.topk(texts[:1], **options).to_dict())


def test_seed_for_each_item(server: Server, runtime: Runtime, item_texts: list[str]) -> None:
    wanted = runtime.topk(item_texts[:3], 5, mode="sample", seed=[1, 2, 2**64 - 1]).to_dict()
    assert_same(server.ask(texts=item_texts[:3], k=5, mode="sample", seed=[1, 2, 2**64 - 1]), wanted)


def test_token_ids_and_item_vectors(
    server: Server, runtime: Runtime, native: Any, tiny_bundle: Bundle, item_texts: list[str]
) -> None:
    texts = [item_texts[0], "one", "a longer text about graphs and genes"]
    wanted = runtime.topk(texts, 5).to_dict()
    assert_same(server.ask(token_ids=native.tokenizer(tiny_bundle.path).encode(texts), k=5), wanted)
    found = server.ask(item_vectors=runtime.encode(texts).astype(float).tolist(), k=5)
    assert_same(found, wanted)
    assert found["timings_ms"].keys() == {"scan", "merge"}


def test_probabilities_are_chosen_and_users_filtered(server: Server, runtime: Runtime, item_texts: list[str]) -> None:
    texts = item_texts[:2]
    best = runtime.topk(texts, 3).user_ids[0].tolist()
    for name, listed in (("deny", best[:2]), ("allow", best), ("allow", [])):
        chosen = runtime.users.filter(**{name: np.array(listed, np.int64)})
        found = server.ask(texts=texts, k=2, **{name: listed})
        assert_same(found, runtime.topk(texts, 2, filter=chosen).to_dict())
    found = server.ask(texts=texts, k=2, log_probs="none")
    assert found["items"][0]["logsumexp"] is found["items"][0]["users"][0]["log_prob"] is None
    wanted = runtime.topk(texts, 2, exact=False).to_dict()
    assert [item["exact"] for item in server.ask(texts=texts, k=2, exact=False)["items"]] == [
        item["exact"] for item in wanted["items"]
    ]
    found = server.ask(texts=texts, k=2, exact=None, log_probs=None, refine=None, deny=None)
    assert found["items"][0]["log_probs_exact"]


REQUEST_FIELDS = ("text", "texts", "token_ids", "item_vectors", "k", "mode", "seed", "budget_ms", "other")


def nested(name: str, depth: int) -> bytes:
    """A request with one field of `depth` brackets."""
    return b'{"%s": %s%s}' % (name.encode(), b"[" * depth, b"]" * depth)


BAD = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b"[" * 90000, "nested deeper than 64"),
    *((nested(name, depth), "nested deeper than 64") for name in REQUEST_FIELDS for depth in (64, 49_000)),
    (nested("k", 63), "k is [[["),
    (b'{"k": 1, "k": 2, "text": "a"}', "'k' stands twice"),
    (b'{"text": "a\0"}', "zero byte"),
    (b'{"text": "a", "k": 1e999}', "unreadable at byte"),
    (b'{"text": "a", "seed": [[1]]}', "seed is [1]"),
    (b"[]", "not a JSON object"),
    (b"{}", "exactly one of"),
    (b'{"text": "a", "texts": ["b"]}', "exactly one of"),
    (b'{"text": 3}', "not a string"),
    (b'{"text": ""}', "text 0 is empty"),
    (b'{"texts": ["a", " \\n"]}', "text 1 is empty"),
    (b'{"texts": "a"}', "not a list"),
    (b'{"texts": []}', "0 items; expected 1 to 20"),
    (json.dumps({"texts": ["a"] * 21}).encode(), "21 items"),
    (b'{"text": "a", "k": 0}', "k is 0"),
    (b'{"text": "a", "k": 401}', "1 to 400"),
    (b'{"text": "a", "k": -1}', "k is -1"),
    (b'{"text": "a", "k": 1.5}', "k is 1.5"),
    (b'{"text": "a", "k": 18446744073709551615}', "request fewer"),
    (b'{"text": "a", "mode": "best"}', "topk or sample"),
    (b'{"text": "a", "seed": -1}', "seed is -1"),
    (b'{"text": "a", "seed": [1, 2]}', "neither one integer nor one per item"),
    (b'{"text": "a", "budget_ms": 0}', "above 0"),
    (b'{"text": "a", "budget_ms": "soon"}', "above 0"),
    (b'{"text": "a", "refine": -1}', "refine is -1"),
    (b'{"text": "a", "refine": 2}', "the table has no refinement rows"),
    (b'{"text": "a", "k": 400, "refine": 4294967297}', "request fewer"),
    (b'{"text": "a", "user": 1}', "'user' is unknown"),
    (b'{"text": "a", "exact": 1}', "exact is 1"),
    (b'{"text": "a", "log_probs": "some"}', "exact, estimate, none or certified"),
    (b'{"text": "a", "exact": false, "log_probs": "exact"}', "log_probs is exact while exact is false"),
    (b'{"text": "a", "allow": 3}', "allow is not a list"),
    (b'{"text": "a", "deny": [-1]}', "not a user id"),
    (b'{"text": "a", "deny": [1], "allow": [2]}', "both allow and deny"),
    (b'{"token_ids": [[]]}', "0 tokens"),
    (b'{"token_ids": [[1, -2]]}', "not a token id"),
    (b'{"token_ids": [[1, 2.5]]}', "not a token id"),
    (b'{"token_ids": [[99999999]]}', "cannot run"),
    (json.dumps({"token_ids": [[1] * 65]}).encode(), "65 tokens; expected 1 to 64"),
    (b'{"item_vectors": [[1, 2]]}', "2 values; expected 16"),
    (b'{"item_vectors": [["a"]]}', "not a number"),
    (json.dumps({"item_vectors": [[1e39] * DIM]}).encode(), "not finite"),
    (json.dumps({"item_vectors": [[1] * DIM, 3]}).encode(), "not a list"),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_malformed_requests(body: bytes, message: str, server: Server) -> None:
    status, text = server.request("POST", "/v1/topk", body)
    assert status == 400, text
    error = json.loads(text)["error"]
    assert error["kind"] == "UsageError"
    assert message in error["message"]
    assert server.request("GET", "/healthz")[0] == 200


def test_large_bodies_are_refused(server: Server) -> None:
    body = json.dumps({"text": "a" * 200_000}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]
    # The length of a chunked body is not known before.
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/topk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, 110_000, 10_000):
            connection.sendall(b"%x\r\n" % 10_000 + body[start : start + 10_000] + b"\r\n")
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]
    assert server.request("GET", "/healthz")[0] == 200


def test_broken_http(server: Server) -> None:
    for raw in (
        b"\r\n\r\n",
        b"POST /v1/topk\r\n\r\n",
        b"POST /v1/topk HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc",
        b"POST /v1/topk HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/topk HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        os.urandom(300),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(30)
            while connection.recv(4096):
                pass
    assert server.request("GET", "/nowhere")[0] == 404
    assert server.request("GET", "/healthz")[0] == 200


def test_concurrent_requests(server: Server, runtime: Runtime, item_texts: list[str]) -> None:
    wanted = {text: runtime.topk([text], 5).to_dict() for text in item_texts}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: (text, server.ask(text=text, k=5)), item_texts * 4))
    for text, found in answers:
        assert_same(found, wanted[text])


def metrics(server: Server) -> dict[str, float]:
    lines = server.request("GET", "/metrics")[1].splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_metrics(server: Server) -> None:
    before = metrics(server)
    server.ask(text="a paper", k=3)
    server.request("POST", "/v1/topk", b"{")
    after = metrics(server)
    assert after['fllm_requests_total{status="200"}'] == before.get('fllm_requests_total{status="200"}', 0) + 1
    assert after["fllm_errors_total"] == before["fllm_errors_total"] + 1
    assert after["fllm_items_total"] == before["fllm_items_total"] + 1
    assert after["fllm_coverage_sum"] == before["fllm_coverage_sum"] + 1
    assert after["fllm_users"] == 400
    assert after["fllm_resident_bytes"] > 5e6
    for stage in ("tokenise", "encode", "scan", "total"):
        name = f'fllm_stage_seconds_bucket{{stage="{stage}",le='
        buckets = [value for key, value in after.items() if key.startswith(name)]
        assert buckets == sorted(buckets)
        assert buckets[-1] == after[f'fllm_stage_seconds_count{{stage="{stage}"}}'] > 0


@pytest.fixture
def places(tiny_bundle: Bundle, tmp_path: Path) -> tuple[Path, tuple[Path, Path]]:
    """A link to a bundle, that bundle, and another whose users have other rows."""
    other = tmp_path / "other"
    shutil.copytree(tiny_bundle.path, other)
    shutil.rmtree(other / "users")
    UserTable.create(other / "users", np.random.default_rng(5).standard_normal((300, DIM)).astype(np.float32))
    link = tmp_path / "bundle"
    link.symlink_to(tiny_bundle.path)
    return link, (tiny_bundle.path, other)


def answers_of(bundles: tuple[Path, Path]) -> list[dict[str, Any]]:
    return [Runtime.open(path, threads=1).topk(["a paper"], 5).to_dict() for path in bundles]


def asked_through_swaps(
    server: Server, link: Path, bundles: tuple[Path, Path], swaps: int, clients: int, pause_s: float = 0.0
) -> list[int]:
    """Ask all the time while the bundle is swapped; each answer is one bundle's. Return which, answer by answer."""
    wanted = answers_of(bundles)
    stop = threading.Event()

    def ask_on() -> list[int]:
        seen = []
        while not stop.is_set():
            found = server.ask(text="a paper", k=5)
            users = [user["user_id"] for user in found["items"][0]["users"]]
            which = [[user["user_id"] for user in answer["items"][0]["users"]] for answer in wanted].index(users)
            assert_same({**found, "generation": 0}, {**wanted[which], "generation": 0})
            seen.append(which)
        return seen

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask_on) for _ in range(clients)]
        try:
            for number in range(swaps):
                turned(link, bundles[(number + 1) % 2])
                assert server.request("POST", "/v1/reload")[0] == 200
                time.sleep(pause_s)
        finally:
            stop.set()
        return [which for future in asking for which in future.result(60)]


@pytest.mark.slow
def test_two_hundred_swaps(server_program: Path, places: Any, onnxruntime_library: str) -> None:
    link, bundles = places
    server = Server(server_program, link, onnxruntime_library)
    server.wait_for("ready")
    try:
        seen = asked_through_swaps(server, link, bundles, 200, 32, 0.05)
    finally:
        assert server.stop() == 0
    assert min(seen.count(which) for which in (0, 1)) > 500


def test_reload_while_asking(server_program: Path, places: Any, onnxruntime_library: str, tmp_path: Path) -> None:
    link, bundles = places
    wanted = answers_of(bundles)
    server = Server(server_program, link, onnxruntime_library)
    server.wait_for("ready")
    try:
        assert set(asked_through_swaps(server, link, bundles, 4, 4)) == {0, 1}
        # A bundle that cannot be opened leaves the old one in place.
        turned(link, tmp_path / "nowhere")
        assert server.request("POST", "/v1/reload")[0] == 500
        server.wait_for("reload failed, the old bundle stays")
        assert_same(server.ask(text="a paper", k=5), wanted[0])
        turned(link, bundles[1])
        server.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 60
        while metrics(server)["fllm_reloads_total"] < 5:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert_same(server.ask(text="a paper", k=5), wanted[1])
        assert metrics(server)["fllm_reloads_total"] == 5
        assert metrics(server)["fllm_failed_reloads_total"] == 1
    finally:
        server.stop()


def test_a_server_that_cannot_open_its_bundle_ends(
    server_program: Path, onnxruntime_library: str, tmp_path: Path
) -> None:
    command = [str(server_program), "--bundle", str(tmp_path), "--port", "0"]
    environment = {**os.environ, "FLLM_ONNXRUNTIME": onnxruntime_library}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 4
    assert "manifest.json is missing" in done.stderr
    for arguments in ([], ["--bundle"], ["--bundle", "x", "--port", "99999"], ["--what", "x"]):
        done = subprocess.run(
            [str(server_program), *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "usage: fllm_server" in done.stderr
    done = subprocess.run([str(server_program), "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "usage: fllm_server" in done.stdout
