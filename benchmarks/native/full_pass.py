"""One item against a whole table in memory, beside a plain read of the same bytes."""

from __future__ import annotations

from benchmarks.native.bench import Bench, one_item, shape
from benchmarks.native.ours import Ours
from benchmarks.native.plain_read import NAME, PlainRead
from benchmarks.native.population import F32, Population
from benchmarks.native.timing import Call, paired
from benchmarks.native.truth import exact_top, recall

_ITEMS = 16


def full_pass(bench: Bench, population: Population, case: str) -> None:
    """Time the pass over all rows, with and without the softmax denominator."""
    directory = bench.tables.get(population)
    ours, items = bench.ours(directory), population.items(_ITEMS)
    bench.note(f"{case}: checking {directory.name} against the NumPy engine")
    ours.check(items[:1], bench.k)
    read = PlainRead(directory, bench.threads)
    calls: dict[str, Call] = {
        NAME: read,
        "top-K": lambda turn: ours.topk(one_item(items, turn), bench.k),
        "top-K and log-probabilities": lambda turn: ours.topk(one_item(items, turn), bench.k, log_probs=True),
    }
    times = paired(calls, bench.repeats)
    yardstick = {NAME: times.pop(NAME)}
    for what, ms in times.items():
        speed = read.bytes / ms.median / 1e6
        bench.compare(case, what, ms, yardstick, **shape(population, 1), bytes=read.bytes, gb_per_s=round(speed, 2))
    read.close()


def partial_pass(bench: Bench, population: Population, case: str) -> None:
    """Time what leaves rows unread, a sketch, clustered tiles and both, beside the full pass and the plain read."""
    plain = bench.tables.get(population)
    full, items = bench.ours(plain), population.items(_ITEMS)
    truth = exact_top(population.chunks(), items, bench.k)
    read = PlainRead(plain, bench.threads)
    calls: dict[str, Call] = {NAME: read, "full pass": lambda turn: full.topk(one_item(items, turn), bench.k)}
    recalls = {}
    for sketch, cluster in ((True, False), (False, True), (True, True)):
        directory = bench.tables.get(population, sketch=sketch, cluster=cluster)
        ours = bench.ours(directory)
        bench.note(f"{case}: checking {directory.name} against the NumPy engine")
        ours.check(items[:1], bench.k)
        for exact in (True, False) if sketch else (True,):
            parts = [*(["clustered"] if cluster else []), *(["sketch"] if sketch else [])]
            name = f"{' and '.join(parts)}, {'exact' if exact else 'statistical'}"
            calls[name] = _asker(ours, items, bench.k, exact=exact)
            recalls[name] = recall(ours.topk(items, bench.k, exact=exact).user_ids, truth)
    times = paired(calls, bench.repeats)
    yardsticks = {name: times[name] for name in (NAME, "full pass")}
    for name, found in recalls.items():
        bench.compare(case, name, times[name], yardsticks, **shape(population, 1), recall=round(found, 5))
    read.close()


def _asker(ours: Ours, items: F32, k: int, *, exact: bool) -> Call:
    return lambda turn: ours.topk(one_item(items, turn), k, exact=exact)
