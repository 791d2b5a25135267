"""What it costs to ask the parts of a table on other processes, and how well the plan of many machines foretells it.

    python -m benchmarks.scale FOLDER [--users 400000] [--dim 128] [--calls 200]

Prints JSON lines. `fan_out`: a search over 4 actors of Ray on this machine, without the scan of the slowest part,
beside round trips of the item vector to one and to 4 actors by Ray, and to one and to 4 processes by TCP; calls take
turns. `plan`: for 1, 2 and 4 machines, the time
of a call that the figure of one machine foretells (its scan divided by the machines, and the merge), beside the
measured one: the slowest of the parts, each searched while the others rest, as on a machine of its own, and the merge
of their answers. These are first deciles; parts take turns. `estimate_ms` is what `fllm-export estimate` says then.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fllm_export import TopK, UserTable
from fllm_export.engines.base import Answer
from fllm_export.planning.estimate import estimate
from fllm_export.scale.merge import merge
from fllm_export.scale.part_host import PartHost, PartOptions, PartRequest

PARTS, K = 4, 100


def timed(work: object) -> float:
    """Return the milliseconds of a call."""
    began = time.perf_counter()
    work()  # type: ignore[operator]
    return (time.perf_counter() - began) * 1e3


def quiet(times: list[float]) -> float:
    """Return the first decile: what a call takes while other processes leave the machine alone."""
    return float(np.percentile(times, 10))


def write(place: Path, users: int, dim: int) -> UserTable:
    """Write a table of 16 shards."""
    generator = np.random.default_rng(0)
    chunks = (generator.standard_normal((users // 16, dim), dtype=np.float32) for _ in range(16))
    return UserTable.create(place, chunks, shard_bytes=(dim + 4) * users // 16 + 4096, sketch="no", cluster="no")


def plan(place: Path, table: UserTable, calls: int) -> None:
    """Compare the plan with parts that are searched one after the other."""
    z = np.random.default_rng(1).standard_normal((1, table.dim), dtype=np.float32)
    hosts = {
        parts: [PartHost(PartOptions(place, (part, parts), threads=1)) for part in range(parts)] for parts in (1, 2, 4)
    }
    asked = PartRequest(z, table.request(1, K, None, "topk", 0, 0.0), None, 1)
    scans: dict[int, list[list[float]]] = {parts: [[] for _ in range(parts)] for parts in hosts}
    merges: dict[int, list[float]] = {parts: [] for parts in hosts}
    for _ in range(calls):
        for parts, several in hosts.items():
            answers: list[Answer] = []
            for part, host in enumerate(several):
                scans[parts][part].append(timed(lambda host=host, found=answers: found.append(host.answer(asked))))
            merges[parts].append(timed(lambda found=answers: merge(found, K, len(table))))
    for parts in hosts:
        foretold = estimate(
            len(table), table.dim, machines=parts, batches=(1,), k=K, threads=1, folder=place.parent,
            quant="int8", sketch="no", cluster="no",
        )  # fmt: skip
        merging = quiet(merges[parts]) if parts > 1 else 0.0
        measured = max(map(quiet, scans[parts])) + merging
        simulated = quiet(scans[1][0]) / parts + merging
        figures = {
            "simulated_ms": round(simulated, 3),
            "measured_ms": round(measured, 3),
            "ratio": round(simulated / measured, 3),
            "estimate_ms": round(foretold.scans[0].call.value * 1e3, 3),
        }
        print(json.dumps({"plan": parts, **figures}), flush=True)


def echo(listener: socket.socket) -> None:
    """Send back what comes on one connection."""
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(1 << 16):
        connection.sendall(data)


@contextmanager
def processes_that_echo() -> Iterator[list[socket.socket]]:
    """Start a process per part that sends back what it gets, and yield connections to them."""
    started, sockets = [], []
    for _ in range(PARTS):
        listener = socket.create_server(("127.0.0.1", 0))
        started.append(multiprocessing.get_context("fork").Process(target=echo, args=(listener,), daemon=True))
        started[-1].start()
        sockets.append(socket.create_connection(listener.getsockname()))
        sockets[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.close()
    try:
        yield sockets
    finally:
        for process in started:
            process.kill()


def round_trips(sockets: list[socket.socket], data: bytes) -> None:
    """Send to all, then wait for all."""
    for each in sockets:
        each.sendall(data)
    for each in sockets:
        left = len(data)
        while left:
            left -= len(each.recv(left))


def fan_out(place: Path, calls: int) -> None:
    """Compare a search over actors with plain round trips."""
    import ray

    from fllm_export.scale.ray_fleet import ActorFleet
    from fllm_export.scale.sharded_source import open_sharded_table

    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)

    @ray.remote(num_cpus=0)
    class Echo:
        def back(self, value: object) -> object:
            return value

    fleet = ActorFleet.start(PartOptions(place, (0, PARTS), threads=1))
    table = open_sharded_table(place, fleet)
    echoes = [Echo.remote() for _ in range(PARTS)]
    z = np.random.default_rng(1).standard_normal((1, table.dim), dtype=np.float32)
    answers: list[TopK] = []
    with processes_that_echo() as sockets:
        work = {
            "ray_round_trip_ms": lambda: ray.get(echoes[0].back.remote(z)),
            "four_ray_round_trips_ms": lambda: ray.get([echo.back.remote(z) for echo in echoes]),
            "tcp_round_trip_ms": lambda: round_trips(sockets[:1], z.tobytes()),
            "four_tcp_round_trips_ms": lambda: round_trips(sockets, z.tobytes()),
            "search_ms": lambda: answers.append(table.topk(z, K)),
        }
        named: dict[str, list[float]] = {name: [] for name in work}
        for call in range(20 + calls):
            for name, each in work.items():
                took = timed(each)
                if call >= 20:
                    named[name].append(took)
    scans = [answer.timings_ms["scan"] for answer in answers[20:]]
    named["fan_out_and_merge_ms"] = [took - scan for took, scan in zip(named["search_ms"], scans, strict=True)]
    p50 = {name: round(statistics.median(times), 3) for name, times in named.items()}
    least = {name: round(float(np.percentile(times, 10)), 3) for name, times in named.items()}
    print(json.dumps({"fan_out": PARTS, "p50": p50, "p10": least, "load": round(os.getloadavg()[0], 1)}), flush=True)
    ray.shutdown()


def main() -> None:
    """Write a table, measure, and remove it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=400_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--calls", type=int, default=200)
    chosen = parser.parse_args()
    place = chosen.folder / "scale-table"
    shutil.rmtree(place, ignore_errors=True)
    try:
        table = write(place, chosen.users, chosen.dim)
        plan(place, table, chosen.calls)
        fan_out(place, chosen.calls)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
