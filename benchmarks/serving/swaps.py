"""Swaps under load: latency before and during them, and health all the while.

    python -m benchmarks.serving.swaps [--swaps 200] [--users 1000000] [--dim 128] [--threads 2] [--clients 32]

Clients ask in a closed loop, first without swaps, then while the server moves between two tables. Health is
asked for on new connections. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.native.machine import describe, load
from benchmarks.serving.load import Client, Outcome
from benchmarks.serving.places import Places, Served, serving


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0, help="before the swaps, and during them")
    parser.add_argument("--cpp", type=Path)
    parser.add_argument("--bundle", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder), options.users, options.dim, options.bundle)
        with serving(places.link, options.threads, options.cpp) as served:
            found = measured(served, places, options)
    print(json.dumps({"benchmark": "swaps", "machine": describe(), **vars(options), **found}, default=str))


def measured(served: Served, places: Places, options: argparse.Namespace) -> dict[str, Any]:
    """Return latencies before and during swaps."""
    z = np.random.default_rng(1).standard_normal((64, 1, options.dim)).astype(np.float32) * 3 / np.sqrt(options.dim)
    bodies = [json.dumps({"item_vectors": one.astype(float).round(6).tolist(), "k": 100}).encode() for one in z]
    client = Client(served.port, "/v1/topk", bodies, options.clients)
    client.run(2.0, None)
    health: list[float] = []
    stop = threading.Event()
    watching = threading.Thread(target=watch, args=(served.port, health, stop))
    watching.start()
    before = client.run(options.seconds, None)
    swapping = threading.Thread(target=swap, args=(served, places, options))
    swapping.start()
    during = client.run(options.seconds, None)
    swapping.join()
    stop.set()
    watching.join()
    client.close()
    return {
        "before": facts(before),
        "during": facts(during),
        "p99_ratio": during.quantile(0.99) / before.quantile(0.99),
        "health_ms": {"median": float(np.median(health)), "p99": float(np.quantile(health, 0.99)), "max": max(health)},
        "load": load(),
    }


def facts(outcome: Outcome) -> dict[str, Any]:
    """Return statuses and quantiles."""
    return {"statuses": outcome.statuses, "p50_ms": outcome.quantile(0.5), "p99_ms": outcome.quantile(0.99)}


def swap(served: Served, places: Places, options: argparse.Namespace) -> None:
    """Move to the other table again and again, evenly over the time."""
    began = time.monotonic()
    for number in range(options.swaps):
        time.sleep(max(0.0, began + number * options.seconds / options.swaps - time.monotonic()))
        places.turn(number + 1)
        served.reload()


def watch(port: int, times_ms: list[float], stop: threading.Event) -> None:
    """Ask for health on new connections."""
    while not stop.wait(0.02):
        began = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as response:
            assert response.status == 200
        times_ms.append((time.perf_counter() - began) * 1e3)


main()
