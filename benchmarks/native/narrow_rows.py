"""One item against rows of fewer bits, beside int8 and beside a plain read of the same bytes."""

from __future__ import annotations

from benchmarks.native.bench import Bench, one_item, shape
from benchmarks.native.plain_read import NAME, PlainRead
from benchmarks.native.population import Population
from benchmarks.native.timing import Call, paired
from benchmarks.native.truth import exact_top, recall

_ITEMS = 16
_QUANTS = ("int8", "int4row", "int2", "int1")


def narrow_rows(bench: Bench, population: Population) -> None:
    """Time a pass over all rows with exact log-probabilities; the tables lie in memory together."""
    items = population.items(_ITEMS)
    truth = exact_top(population.chunks(), items, bench.k)
    calls: dict[str, Call] = {}
    reads, recalls = {}, {}
    for quant in _QUANTS:
        bench.note(f"codecs: writing {quant} and checking it against the NumPy engine")
        directory = bench.tables.get(population, quant=quant)
        ours = bench.ours(directory)
        ours.check(items[:1], bench.k)
        recalls[quant] = recall(ours.topk(items, bench.k).user_ids, truth)
        reads[quant] = PlainRead(directory, bench.threads)
        calls[f"{NAME}, {quant}"] = reads[quant]
        calls[quant] = lambda turn, ours=ours: ours.topk(one_item(items, turn), bench.k, log_probs=True)
    times = paired(calls, bench.repeats)
    for quant in _QUANTS:
        read = f"{NAME}, {quant}"
        yardsticks = {read: times[read]} | ({} if quant == "int8" else {"int8": times["int8"]})
        about = {**shape(population, 1), "quant": quant, "bytes": reads[quant].bytes, "recall": recalls[quant]}
        bench.compare("codecs", f"{quant}, top-K and log-probabilities", times[quant], yardsticks, **about)
        reads[quant].close()
