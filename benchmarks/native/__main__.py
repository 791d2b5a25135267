"""The native engine beside every yardstick of the same run.

    python -m benchmarks.native read sketch budget batch wide codecs recall disk > lines.jsonl
    python -m benchmarks.native --report lines.jsonl
    python -m benchmarks.native --contest run1.jsonl run2.jsonl run3.jsonl

Results are JSON lines on stdout, each figure with its yardstick's; progress is on stderr. Equality with the NumPy
engine, or the recall of the exact float32 ranking, is established before anything is timed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.native.batch import batch
from benchmarks.native.bench import Bench
from benchmarks.native.budget import budget
from benchmarks.native.contest import contest
from benchmarks.native.disk import disk
from benchmarks.native.equal_recall import equal_recall
from benchmarks.native.full_pass import full_pass, partial_pass
from benchmarks.native.narrow_rows import narrow_rows
from benchmarks.native.ours import Tables
from benchmarks.native.population import PROFILES, Kind
from benchmarks.native.presets import PRESETS, Preset
from benchmarks.native.report import report

KINDS: tuple[Kind, ...] = ("trained", "gaussian")


def main() -> None:
    """Run the cases that are named, or print the report of earlier runs."""
    options = _options()
    for files, made in ((options.report, report), (options.contest, contest)):
        if files:
            print(made(line for path in files for line in path.read_text().splitlines()), end="")
            return
    preset = PRESETS[options.preset]
    # So that a run that is told to end removes its tables too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.work) as folder, Tables(Path(folder)) as tables:
        repeats = options.repeats or preset.repeats
        bench = Bench(tables, options.engine, options.threads, repeats, seed=options.seed)
        bench.begin(options.preset)
        for name in options.cases:
            bench.note(f"{name}: begins")
            CASES[name](bench, preset, options)


def read(bench: Bench, preset: Preset, _: argparse.Namespace) -> None:
    """One item, the whole table in memory."""
    full_pass(bench, bench.population("trained", *preset.read), "read")


def sketch(bench: Bench, preset: Preset, options: argparse.Namespace) -> None:
    """One item, rows left unread by a sketch and by tile bounds, on rows of several kinds."""
    for kind in options.kind or KINDS:
        partial_pass(bench, bench.population(kind, *preset.read), "sketch")


def cut_off(bench: Bench, preset: Preset, options: argparse.Namespace) -> None:
    """One item within a budget, on rows of several kinds."""
    for kind in options.kind or KINDS:
        budget(bench, bench.population(kind, *preset.read))


def many(bench: Bench, preset: Preset, options: argparse.Namespace) -> None:
    """Many items at once."""
    for kind in options.kind or KINDS[:1]:
        batch(bench, bench.population(kind, *preset.batch), preset.items)


def wide(bench: Bench, preset: Preset, _: argparse.Namespace) -> None:
    """One item, long rows; one table at a time."""
    for size in preset.wide:
        population = bench.population("trained", *size)
        full_pass(bench, population, "wide")
        bench.tables.drop(population)


def codecs(bench: Bench, preset: Preset, _: argparse.Namespace) -> None:
    """One item, rows of fewer bits; the tables of the full size take 2 GB."""
    narrow_rows(bench, bench.population("trained", *preset.codecs))


def recall(bench: Bench, preset: Preset, options: argparse.Namespace) -> None:
    """All libraries at equal recall, on rows of several kinds."""
    for kind in options.kind or KINDS:
        equal_recall(bench, bench.population(kind, *preset.recall), preset.items, options.contender)


def from_disk(bench: Bench, preset: Preset, _: argparse.Namespace) -> None:
    """A table read from disk."""
    disk(bench, bench.population("gaussian", *preset.disk))


CASES: dict[str, Callable[[Bench, Preset, argparse.Namespace], None]] = {
    "read": read,
    "sketch": sketch,
    "budget": cut_off,
    "batch": many,
    "wide": wide,
    "codecs": codecs,
    "recall": recall,
    "disk": from_disk,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.native", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=" ".join(CASES))
    parser.add_argument("--preset", choices=PRESETS, default="full")
    parser.add_argument("--engine", default="native", help="the engine measured (default: native)")
    parser.add_argument("--threads", type=int, default=2, help="of every engine and yardstick (default: 2)")
    parser.add_argument("--repeats", type=int, help="rounds of each paired timing (default: the preset's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="where tables are made and removed again; disk takes 7.7 GB")
    parser.add_argument(
        "--kind",
        choices=(*KINDS, *PROFILES),
        action="append",
        help="sketch, budget, batch, recall: rows of this kind only. Data sets name profiles of real tables",
    )
    parser.add_argument("--contender", action="append", default=[], help="recall: only names that hold this")
    parser.add_argument("--report", type=Path, nargs="+", metavar="LINES", help="print Markdown from earlier runs")
    parser.add_argument(
        "--contest", type=Path, nargs="+", metavar="LINES", help="print the least favourable ratios of earlier runs"
    )
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown or sum(map(bool, (options.cases, options.report, options.contest))) != 1:
        wanted = f"name cases of {', '.join(CASES)}, or --report, or --contest"
        parser.error(wanted + (f"; not {unknown[0]}" if unknown else ""))
    return options


if __name__ == "__main__":
    main()
