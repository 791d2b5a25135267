"""Throughput of a server beside the library's own in the same run, then latency under open-loop load.

    python -m benchmarks.serving [--users 1000000] [--dim 128] [--threads 2] [--k 100] [--items 1] [--log-probs exact]
        [--connections 160]
    python -m benchmarks.serving --cpp build/server/fllm_server --bundle bundle

The library answers batches of 64 items in a row; the server answers requests with --items items from --connections
of them. The two take turns. The client runs on the same CPUs, and what it takes is missing to the server. `--cpp`
measures the C++ server on a bundle in place of a table made here. Prints one JSON line, then a table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.native.machine import describe, load
from benchmarks.serving.load import Client
from benchmarks.serving.places import Served, serving
from fllm_export import UserTable
from fllm_export.cli.output import columns

BATCH = 64
BODIES = 256
SHARES = (0.5, 0.8, 1.5)


def main() -> None:
    """Measure and print."""
    options = parsed()
    with tempfile.TemporaryDirectory() as folder:
        source = options.bundle or made(Path(folder) / "users", options)
        users = source / "users" if (source / "users").is_dir() else source
        table = UserTable.open(users, threads=options.threads)
        z = item_vectors(table.dim, options.items)
        further = [part for option in options.option for part in f"--{option}".split("=", 1)]
        with serving(source, options.threads, options.cpp, *further) as served:
            client = Client(served.port, "/v1/topk", bodies(z, options), options.connections)
            found = measured(table, client, served, z, options)
            client.close()
    print(json.dumps({"benchmark": "serving", "machine": describe(), **vars(options), **found}, default=str))
    print("\n" + told(found))


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--items", type=int, default=1, help="items per request")
    parser.add_argument("--log-probs", default="exact")
    parser.add_argument("--connections", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn and of each load")
    parser.add_argument("--cpp", type=Path, help="the C++ server's program")
    parser.add_argument("--bundle", type=Path, help="what it serves")
    parser.add_argument("--option", action="append", default=[], help="further option of the server, as NAME=VALUE")
    return parser.parse_args()


def made(path: Path, options: argparse.Namespace) -> Path:
    """Return an int8 table of random rows."""
    generator = np.random.default_rng(0)
    step = 100_000
    chunks = (
        generator.standard_normal((min(step, options.users - start), options.dim), dtype=np.float32)
        for start in range(0, options.users, step)
    )
    UserTable.create(path, chunks, quant="int8")
    return path


def item_vectors(dim: int, items: int) -> np.ndarray:
    """Return item vectors [requests, items, dim], of a size that gives logits of a trained model's spread."""
    drawn = np.random.default_rng(1).standard_normal((BODIES, items, dim))
    return (drawn * 3 / np.sqrt(dim)).astype(np.float32)


def bodies(z: np.ndarray, options: argparse.Namespace) -> list[bytes]:
    """Return the bodies of requests; numbers have the digits that float32 needs."""
    how: dict[str, Any] = {"k": options.k}
    if options.log_probs != "exact":
        how["log_probs"] = options.log_probs
    texts = [[[float(f"{value:.9g}") for value in item] for item in request] for request in z.tolist()]
    return [json.dumps({"item_vectors": text, **how}).encode() for text in texts]


def measured(
    table: UserTable, client: Client, running: Served, z: np.ndarray, options: argparse.Namespace
) -> dict[str, Any]:
    """Return throughput of library and server in turns, and the server's latency at shares of its throughput."""
    client.run(1.0, None)
    library, served = [], []
    costs: dict[str, list[float]] = {"library": [], "server": []}  # processor seconds per item
    for _ in range(options.rounds):
        began = time.process_time()
        library.append(library_rate(table, z, options))
        costs["library"].append((time.process_time() - began) / (library[-1] * options.seconds))
        began = running.processor_s()
        outcome = client.run(options.seconds, None)
        costs["server"].append((running.processor_s() - began) / (outcome.statuses[200] * options.items))
        assert outcome.statuses.keys() == {200}, outcome.statuses
        served.append(outcome.statuses[200] * options.items / outcome.seconds)
    ratios = [ours / own for ours, own in zip(served, library, strict=True)]
    rate = float(np.median(served)) / options.items
    loads = []
    for share in SHARES:
        outcome = client.run(options.seconds, share * rate)
        loads.append(
            {
                "share": share,
                "requests_per_s": share * rate,
                "statuses": outcome.statuses,
                "latency_ms": {name: outcome.quantile(q) for name, q in (("p50", 0.5), ("p99", 0.99))},
            }
        )
    return {
        "library_items_per_s": float(np.median(library)),
        "server_items_per_s": float(np.median(served)),
        "ratio": float(np.median(ratios)),
        "ratios": ratios,
        "processor_ms_per_item": {name: 1e3 * float(np.median(each)) for name, each in costs.items()},
        "open_loop": loads,
        "load": load(),
    }


def library_rate(table: UserTable, z: np.ndarray, options: argparse.Namespace) -> float:
    """Return items per second of calls with 64 items."""
    flat = z.reshape(-1, z.shape[-1])
    until, done, began = time.perf_counter() + options.seconds, 0, time.perf_counter()
    while time.perf_counter() < until:
        start = done % (len(flat) - BATCH + 1)
        table.topk(flat[start : start + BATCH], options.k, log_probs=options.log_probs)
        done += BATCH
    return done / (time.perf_counter() - began)


def told(found: dict[str, Any]) -> str:
    """Return the result for people."""
    lines = [
        [
            f"{case['share']:.0%}",
            f"{case['requests_per_s']:.0f}",
            f"{case['latency_ms']['p50']:.1f}",
            f"{case['latency_ms']['p99']:.1f}",
            ", ".join(f"{status}: {count}" for status, count in sorted(case["statuses"].items())),
        ]
        for case in found["open_loop"]
    ]
    header = ["load", "requests/s", "p50 ms", "p99 ms", "answers by status"]
    return (
        f"library {found['library_items_per_s']:.0f} items/s, server {found['server_items_per_s']:.0f} items/s, "
        f"ratio {found['ratio']:.2f} (each round: {', '.join(f'{ratio:.2f}' for ratio in found['ratios'])})\n"
        + "processor time per item: "
        + ", ".join(f"{name} {ms:.2f} ms" for name, ms in found["processor_ms_per_item"].items())
        + "\n\n"
        + columns(header, lines)
    )


main()
