"""A server under queries and swaps for a long time: its memory, its errors, and answers held against the reference.

    python -m benchmarks.serving.soak [--minutes 20] [--rate 40]
    python -m benchmarks.serving.soak --cpp build/server/fllm_server --bundle bundle

Every answer must be that of the table whose generation it carries, by the engine `numpy`. The server moves to the other
table every second. Memory is compared between the first and the last fifth of the time after a warm-up of a minute.
Prints one JSON line.
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

from benchmarks.serving.places import Places, Served, serving
from fllm_export import UserTable

WARM_UP_S = 60.0


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
    asking = Asking(served.port, places, options)
    thread = threading.Thread(target=asking.run)
    thread.start()
    began, swaps, sizes = time.monotonic(), 0, []
    while (passed := time.monotonic() - began) < options.minutes * 60:
        swaps += 1
        places.turn(swaps)
        served.reload()
        if passed > WARM_UP_S:
            sizes.append(served.resident_bytes())
        time.sleep(1.0)
    asking.stop.set()
    thread.join()
    fifth = max(1, len(sizes) // 5)
    first, last = (float(np.median(part)) for part in (sizes[:fifth], sizes[-fifth:]))
    return {
        "swaps": swaps,
        "answers": asking.answers,
        "errors": asking.errors[:5],
        "error_count": len(asking.errors),
        "resident_bytes_first": first,
        "resident_bytes_last": last,
        "growth": last / first - 1,
    }


class Asking:
    """One client with a kept connection, at a fixed rate."""

    def __init__(self, port: int, places: Places, options: argparse.Namespace) -> None:
        self.stop = threading.Event()
        self.answers = 0
        self.errors: list[str] = []
        self._port, self._pause_s = port, 1 / options.rate
        z = np.random.default_rng(3).standard_normal((32, 2, options.dim)).astype(np.float32)
        self._bodies = [json.dumps({"item_vectors": one.astype(float).tolist(), "k": 10}).encode() for one in z]
        self._wanted = {}
        for path in places.tables:
            table = UserTable.open(path, engine="numpy")
            answers = [table.topk(one, 10) for one in z]
            self._wanted[table.generation] = [(a.user_ids.tolist(), a.scores.tolist()) for a in answers]

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
        return (users, scores) == self._wanted[found["generation"]][which]


main()
