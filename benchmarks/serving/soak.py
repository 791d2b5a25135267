"""A server under queries, changes and swaps for a long time: memory, errors, answers held against the reference.

    python -m benchmarks.serving.soak [--minutes 20] [--rate 40]
    python -m benchmarks.serving.soak --cpp build/server/fllm_server --bundle bundle

Two living tables are served in turn. Each round appends users to one, updates some, deletes others, and compacts it
now and then; then the server moves to it. Every answer must be that of the generation that it carries, by the engine
`numpy`.
Memory is compared between the first and the last fifth of the time after a warm-up of a minute. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.native.machine import load
from benchmarks.serving.places import Places, Served, serving
from fllm_export import UserTable
from fllm_export.table.living import LivingTable

WARM_UP_S = 60.0
CHANGED = 50


def main() -> None:
    """Serve, ask, swap and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=40.0, help="requests per second")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--cpp", type=Path)
    parser.add_argument("--bundle", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder), options.users, options.dim, options.bundle)
        with serving(places.link, 1, options.cpp) as served:
            found = soaked(served, places, options)
    print(json.dumps({"benchmark": "soak", **vars(options), **found}, default=str))


def soaked(served: Served, places: Places, options: argparse.Namespace) -> dict[str, Any]:
    """Return what came of it."""
    asking = Asking(served.port, options)
    writers = [Writer(table, number, options) for number, table in enumerate(places.tables)]
    for writer in writers:
        asking.expect(writer.table)
    thread = threading.Thread(target=asking.run, daemon=True)
    thread.start()
    began, rounds, sizes = time.monotonic(), 0, []
    while (passed := time.monotonic() - began) < options.minutes * 60:
        rounds += 1
        writer = writers[rounds % 2]
        writer.change()
        asking.expect(writer.table)
        places.turn(rounds)
        served.reload()
        if passed > WARM_UP_S:
            sizes.append(served.resident_bytes())
        time.sleep(1.0)
    asking.stop.set()
    thread.join()
    fifth = max(1, len(sizes) // 5)
    first, last = (float(np.median(part)) for part in (sizes[:fifth], sizes[-fifth:]))
    return {
        "swaps": rounds,
        "changes": {kind: sum(writer.counts[kind] for writer in writers) for kind in writers[0].counts},
        "generations_seen": len(asking.seen),
        "load": load(),
        "answers": asking.answers,
        "errors": asking.errors[:5],
        "error_count": len(asking.errors),
        "resident_bytes_first": first,
        "resident_bytes_last": last,
        "growth": last / first - 1,
    }


class Writer:
    """Changes one table: users come, change and go, so that their number stays about the same.

    Args:
        directory: of the table.
        number: of the table.
        options: of the benchmark.
    """

    def __init__(self, directory: Path, number: int, options: argparse.Namespace) -> None:
        self.table = directory
        self.counts = dict.fromkeys(("append", "update", "delete", "compact"), 0)
        self._living = LivingTable(directory)
        self._random = np.random.default_rng(100 + number)
        self._dim, self._first, self._next = options.dim, 0, options.users

    def change(self) -> None:
        """Append, update and delete; compact each tenth time."""
        new = np.arange(self._next, self._next + CHANGED)
        self._living.append([(self._rows(), new, None)])
        self._next += CHANGED
        known = self._random.choice(np.arange(self._first, self._next), CHANGED, replace=False)
        self._living.update([(self._rows(), known, None)])
        self._living.delete(np.arange(self._first, self._first + CHANGED))
        self._first += CHANGED
        for kind in ("append", "update", "delete"):
            self.counts[kind] += 1
        if self.counts["append"] % 10 == 0:
            self._living.compact()
            self.counts["compact"] += 1

    def _rows(self) -> npt.NDArray[np.float32]:
        return self._random.standard_normal((CHANGED, self._dim)).astype(np.float32)


class Asking:
    """One client with a kept connection, at a fixed rate."""

    def __init__(self, port: int, options: argparse.Namespace) -> None:
        self.stop = threading.Event()
        self.answers = 0
        self.errors: list[str] = []
        self.seen: set[int] = set()
        self._port, self._pause_s = port, 1 / options.rate
        self._z = np.random.default_rng(3).standard_normal((32, 2, options.dim)).astype(np.float32)
        self._bodies = [json.dumps({"item_vectors": one.astype(float).tolist(), "k": 10}).encode() for one in self._z]
        self._wanted: dict[int, list[tuple[Any, Any]]] = {}

    def expect(self, path: Path) -> None:
        """Take down what the reference engine answers for the generation that a table has now."""
        table = UserTable.open(path, engine="numpy")
        found = table.topk(self._z.reshape(-1, self._z.shape[2]), 10)
        pairs = zip(found.user_ids.reshape(32, 2, 10).tolist(), found.scores.reshape(32, 2, 10).tolist(), strict=True)
        self._wanted[table.generation] = list(pairs)

    def run(self) -> None:
        """Ask until told to stop."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self.stop.wait(self._pause_s):
            which = self.answers % len(self._bodies)
            try:
                connection.request("POST", "/v1/topk", self._bodies[which])
                response = connection.getresponse()
                found = json.loads(response.read())
            except OSError as error:
                self.errors.append(repr(error))
                connection.close()
                continue
            self.answers += 1
            if response.status != 200 or not self._right(found, which):
                self.errors.append(str(found)[:300])

    def _right(self, found: Any, which: int) -> bool:
        users = [[user["user_id"] for user in item["users"]] for item in found["items"]]
        scores = [[user["score"] for user in item["users"]] for item in found["items"]]
        self.seen.add(found["generation"])
        return (users, scores) == self._wanted[found["generation"]][which]


main()
