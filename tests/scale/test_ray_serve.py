"""The application on Ray Serve: its command line, reloads of all replicas, and replicas that are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.table.layout import TableLayout

from .ray_cluster import cluster

pytestmark = pytest.mark.slow

GENERATOR = np.random.default_rng(2)
ROWS = GENERATOR.standard_normal((4000, 64)).astype(np.float32)
Z = GENERATOR.standard_normal((3, 64)).astype(np.float32)
BODY = {"item_vectors": Z.tolist(), "k": 20}
PARTS = 2
WAIT_S = 120.0


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with cluster(16):
        yield pytest.importorskip("ray")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    UserTable.create(tmp_path / "t", ROWS, quant="int4", refine="int8", cluster="no", shard_bytes=1 << 15)
    return tmp_path / "t"


@pytest.fixture
def port(ray: Any) -> Iterator[int]:
    """Ray Serve without an application, at a port of its own."""
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    serve.start(http_options={"port": number, "host": "127.0.0.1"})
    yield number
    serve.shutdown()


def deploy(place: Path, **arguments: Any) -> None:
    from ray import serve

    from fllm_export.scale.serve_app import Arguments, app

    serve.run(app(Arguments(source=place, parts=PARTS, threads=1, **arguments)), name="fllm", route_prefix="/")


def asked(port: int, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON of an answer; (0, {}) where the connection was lost."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text.startswith(b"{") else {"text": text.decode()}
    except OSError:
        return 0, {}


def users(answer: dict[str, Any]) -> list[list[int]]:
    return [[user["user_id"] for user in item["users"]] for item in answer["items"]]


def generations(port: int) -> set[int]:
    """The generations that routers serve; of two routers, 40 requests miss one with a probability of 2^-39."""
    return {asked(port, "/readyz")[1].get("generation", 0) for _ in range(40)}


def replicas(deployment: str) -> list[str]:
    """The names of the actors of a deployment."""
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    return [each["name"] for each in named if f"#{deployment}#" in each["name"]]


def kill(name: str) -> None:
    import ray

    ray.kill(ray.get_actor(name, namespace="serve"), no_restart=True)


def eventually(what: Callable[[], bool], wait_s: float = WAIT_S) -> bool:
    until = time.monotonic() + wait_s
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def test_a_reload_reaches_every_router_and_every_part(port: int, place: Path) -> None:
    deploy(place, replicas=2, routers=2)
    whole = UserTable.open(place, threads=1)
    expected = whole.topk(Z, 20)
    status, answer = asked(port, "/v1/topk", BODY)
    assert status == 200
    assert users(answer) == expected.user_ids.tolist()
    assert all(item["complete"] for item in answer["items"])
    UserTable.open(place).delete(expected.user_ids[0][:1])
    assert generations(port) == {1}
    assert asked(port, "/v1/reload", {}) == (200, {"generation": 2})
    assert generations(port) == {2}
    whole.reopen()
    assert users(asked(port, "/v1/topk", BODY)[1]) == whole.topk(Z, 20).user_ids.tolist()
    assert asked(port, "/v1/reload", {"path": "/elsewhere"})[0] == 403


def test_a_part_that_cannot_reload_is_named_and_no_router_moves_on(port: int, place: Path) -> None:
    deploy(place, routers=2)
    UserTable.open(place).delete([5])
    shard = place / TableLayout.load(place).shards[0].name
    shard.rename(place / "elsewhere")
    status, answer = asked(port, "/v1/reload", {})
    assert status == 500
    assert answer["error"]["kind"] == "BundleError"
    assert "1 of 2 replicas did not reload, and no router has moved on (part-0 " in answer["error"]["found"]
    assert shard.name in answer["error"]["found"]
    assert generations(port) == {1}
    (place / "elsewhere").rename(shard)
    assert asked(port, "/v1/reload", {}) == (200, {"generation": 2})
    assert generations(port) == {2}


def test_a_reload_while_a_router_is_killed(
    port: int, place: Path, record_property: Callable[[str, object], None]
) -> None:
    deploy(place, routers=2)
    UserTable.open(place).delete([5])
    first, _ = replicas("router")
    kill(first)
    failures: list[dict[str, Any]] = []

    def reloads() -> bool:
        status, answer = asked(port, "/v1/reload", {})
        if status != 200:
            failures.append(answer)
        return (status, answer) == (200, {"generation": 2})

    assert eventually(reloads)
    record_property("answers before", failures)
    for answer in failures:  # of the router: who failed; of Ray Serve: that the router of the request was lost
        assert "router" in answer.get("error", {}).get("found", "router"), answer
    assert eventually(lambda: len(replicas("router")) == 2)
    assert eventually(lambda: generations(port) == {2})


def test_a_killed_replica_costs_no_answer(
    port: int, place: Path, record_property: Callable[[str, object], None]
) -> None:
    deploy(place, replicas=2, routers=2, retries=1)
    expected = UserTable.open(place, threads=1).topk(Z, 20)
    ended, killed = threading.Event(), []

    def killer() -> None:
        for deployment in ("part-0", "router", "part-1"):
            if ended.wait(2.0):
                return
            name = replicas(deployment)[0]
            kill(name)
            killed.append(name)

    thread = threading.Thread(target=killer)
    thread.start()
    exact = incomplete = refused = 0
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until and (thread.is_alive() or exact < 50):
        status, answer = asked(port, "/v1/topk", BODY)
        if status != 200:
            refused += 1  # Ray Serve had sent it to the router that was killed
            continue
        for item, found in enumerate(answer["items"]):
            if found["complete"]:
                assert users(answer)[item] == expected.user_ids[item].tolist()
            else:
                assert found["coverage"] < 1
                assert not found["exact"]
        whole = all(found["complete"] for found in answer["items"])
        exact, incomplete = exact + whole, incomplete + (not whole)
    ended.set()
    thread.join()
    record_property("answers", f"{exact} exact, {incomplete} marked incomplete, {refused} without an answer")
    assert len(killed) == 3
    assert exact >= 50
    assert refused <= 20
    assert eventually(lambda: all(item["complete"] for item in asked(port, "/v1/topk", BODY)[1].get("items", [{}])))


def test_serve_run_as_a_process(ray: Any, port: int, place: Path) -> None:
    command = [str(Path(sys.executable).with_name("serve")), "run", "fllm_export.scale.serve_app:app"]
    where = ray.get_runtime_context().gcs_address
    log = place.parent / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, f"source={place}", f"parts={PARTS}", "threads=1"],
            env={**os.environ, "RAY_ADDRESS": where},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert eventually(lambda: asked(port, "/readyz")[0] == 200 or process.poll() is not None), log.read_text()
        assert process.poll() is None, log.read_text()
        status, answer = asked(port, "/v1/topk", BODY)
        assert status == 200
        assert users(answer) == UserTable.open(place, threads=1).topk(Z, 20).user_ids.tolist()
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0, log.read_text()
        assert eventually(lambda: asked(port, "/readyz")[0] == 0)
    finally:
        process.kill()
        process.wait()


def test_serve_run_says_what_is_wrong(ray: Any, port: int, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("serve")), "run", "fllm_export.scale.serve_app:app"]
    wrong = subprocess.run(
        [*command, f"source={tmp_path}", "part=2"],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert wrong.returncode != 0
    assert "part\n  Extra inputs are not permitted" in wrong.stderr
