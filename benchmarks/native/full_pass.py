"""One item against a whole table in memory, beside a plain read of the same bytes."""

from __future__ import annotations

from benchmarks.native.bench import Bench, one_item, shape
from benchmarks.native.plain_read import NAME, PlainRead
from benchmarks.native.population import Population
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


def sketch_pass(bench: Bench, population: Population, case: str) -> None:
    """Time the sketch pass with proving and with statistical bounds, beside the full pass and the plain read."""
    plain, sketched = bench.tables.get(population), bench.tables.get(population, sketch=True)
    full, ours = bench.ours(plain), bench.ours(sketched)
    items = population.items(_ITEMS)
    bench.note(f"{case}: checking {sketched.name} against the NumPy engine")
    ours.check(items[:1], bench.k)
    truth = exact_top(population.chunks(), items, bench.k)
    recalls = {exact: recall(ours.topk(items, bench.k, exact=exact).user_ids, truth) for exact in (True, False)}
    read = PlainRead(plain, bench.threads)
    calls: dict[str, Call] = {
        NAME: read,
        "full pass": lambda turn: full.topk(one_item(items, turn), bench.k),
        "sketch, exact": lambda turn: ours.topk(one_item(items, turn), bench.k, exact=True),
        "sketch, statistical": lambda turn: ours.topk(one_item(items, turn), bench.k, exact=False),
    }
    times = paired(calls, bench.repeats)
    yardsticks = {name: times[name] for name in (NAME, "full pass")}
    for what, exact in (("sketch, exact", True), ("sketch, statistical", False)):
        bench.compare(case, what, times[what], yardsticks, **shape(population, 1), recall=round(recalls[exact], 5))
    read.close()
