"""Recall and latency of narrow rows whose best candidates are ranked again, beside plain int8 rows.

    python -m benchmarks.refinement checkpoint CHECKPOINT DATASET [--states STATES]
    python -m benchmarks.refinement rows [--kind citeulike-a] [--rows N] [--dim D] --work FOLDER

The first measures recall@100 of a trained checkpoint against its own fp32 rows, on 800 items of `cold_test`; for
DATASET and STATES see benchmarks/rounding.py. The second writes tables of synthetic rows like those of a real table
(benchmarks/native/profile.py) to FOLDER, where they stay for the next run, and times one item per call; all calls take
turns. Rows that are scanned are along the directions that other items choose, but int8 rows of all dimensions are
stored as they are. The first rounds rows by data, as `build` does, and the second to the nearest, which takes less time
and ranks a little worse. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.native.population import PROFILES, Population
from benchmarks.native.timing import paired
from benchmarks.native.truth import exact_top, recall
from benchmarks.rounding import Study, item_vectors
from fllm_export import Checkpoint, UserTable
from fllm_export.calibration.directions import FEEDBACK_BALANCE, Directions, cut, ordered
from fllm_export.calibration.feedback import Feedback
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.transform import Transform
from fllm_export.evaluation.dataset import Dataset
from fllm_export.table.options import Choice, TableOptions
from fllm_export.table.rounding import Rounding, nearest
from fllm_export.table.writer import Chunk, TableWriter, write_table

K, CANDIDATES = 100, (1, 2, 4, 8, 16)
ITEMS, OTHERS, MEASURED = 32, 4096, 1 << 17

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """How a table holds rows.

    Attributes:
        quant: codec of the rows that are scanned.
        share: of the dimensions that they have.
        refine: codec of the refinement rows.
        clustered: whether tiles have bounds and int8 rows a sketch, as in large tables by default.
    """

    quant: str
    share: float = 1.0
    refine: str = "no"
    clustered: bool = False

    def dim(self, whole: int) -> int:
        """Return the dimension of the rows that are scanned."""
        return int(whole * self.share)

    def transform(self, directions: Directions) -> Transform | None:
        """Return the transform of rows and items."""
        whole = len(directions.vectors)
        if self.quant == "int8" and self.share == 1:
            return None
        if self.share < 1:
            return ordered(directions, self.dim(whole), FEEDBACK_BALANCE)
        return cut(directions, whole, self.quant, FEEDBACK_BALANCE)

    def rounding(self, transform: Transform | None, metric: F64) -> Rounding:
        """Return how rows are rounded behind a transform, for item vectors of a second moment [d, d]."""
        if transform is None:
            return nearest
        dim = self.dim(len(metric))
        return Feedback((transform.items @ metric @ transform.items.T)[:dim, :dim])

    def name(self, whole: int) -> str:
        """Return its name."""
        finer = "" if self.refine == "no" else f" + {self.refine}"
        return f"{self.quant} x {self.dim(whole)}{finer}" + ", clusters" * self.clustered

    def write(self, directory: Path, whole: int, chunks: Iterable[Chunk], rounding: Rounding, *, bias: bool) -> None:
        """Write the table."""
        sketch: Choice = "yes" if self.clustered and self.quant == "int8" and self.refine == "no" else "no"
        options = TableOptions(self.quant, sketch=sketch, cluster="yes" if self.clustered else "no", refine=self.refine)
        scan_dim = self.dim(whole) if self.refine != "no" else whole
        write_table(TableWriter(directory, options, dim=whole, scan_dim=scan_dim, bias=bias, rounding=rounding), chunks)


REFINED = (Form("int2", refine="int8"), Form("int4row", refine="int8"), Form("int4row", 0.5, "int8"))
FORMS = (Form("int8"), *REFINED)
CLUSTERED = tuple(Form(form.quant, form.share, form.refine, True) for form in FORMS[:2])


def of_checkpoint(options: argparse.Namespace) -> None:
    """Print the recall of each form, rounded by data where `build` does."""
    checkpoint, dataset = Checkpoint.load(options.checkpoint), Dataset.load(options.dataset)
    study = Study(checkpoint, dataset, item_vectors(checkpoint, dataset, options.states))
    whole = study.rows.shape[1]
    best = exact_top(_with_bias(study.rows, study.bias), _with_ones(study.asked), K)
    for form in FORMS:
        transform = form.transform(study.directions)
        rows, z = study.rows, study.asked
        if transform is not None:
            rows, z = transform.rows(rows), transform.item_vectors(z)
        rounding = form.rounding(transform, study.metric)
        with TemporaryDirectory() as folder:
            form.write(Path(folder) / "t", whole, [(rows, None, study.bias)], rounding, bias=True)
            table = UserTable.open(Path(folder) / "t")
            for c in (0,) if form.refine == "no" else (0, *CANDIDATES):
                found = table.topk(z, K, refine=c, log_probs="none").user_ids
                _print("checkpoint", form=form.name(whole), candidates=c, recall=round(recall(found, best), 4))


def _with_bias(rows: F32, bias: F32) -> Iterator[F32]:
    yield np.concatenate([rows, bias[:, None]], 1)


def _with_ones(z: F32) -> F32:
    return np.concatenate([z, np.ones((len(z), 1), np.float32)], 1)


def of_rows(options: argparse.Namespace) -> None:
    """Write the tables that are missing, and time one item on all of them in turn."""
    population = Population(options.kind, options.rows, options.dim, 0)
    drawn = population.items(ITEMS + OTHERS)
    items, others = drawn[:ITEMS], drawn[ITEMS:]
    first = next(population.chunks())[:MEASURED]
    directions = Directions.of(Moments.of((others,)), Moments.of((first,)))
    truth = exact_top(population.chunks(), items, K)
    for forms, log_probs in ((FORMS, "exact"), (CLUSTERED, "none")):
        calls: dict[str, Callable[[int], Any]] = {}
        recalls: dict[str, float] = {}
        for form in forms:
            transform = form.transform(directions)
            table = _opened(options.work, population, form, transform)
            z = items if transform is None else transform.item_vectors(items)
            for c in (0,) if form.refine == "no" else CANDIDATES:
                name = form.name(options.dim) + (f", c {c}" if c else "")
                ask = partial(table.topk, k=K, refine=c, log_probs=log_probs)
                recalls[name] = recall(ask(z).user_ids, truth)
                calls[name] = lambda turn, ask=ask, z=z: ask(z[turn % ITEMS])
        times = paired(calls, options.repeats)
        plain = times[next(iter(times))]
        for name, found in times.items():
            ratio = round(found.times_as_fast_as(plain), 2)
            facts = {"recall": round(recalls[name], 4), "ms": round(found.median, 3), "times_as_fast_as_int8": ratio}
            _print("rows", log_probs=log_probs, form=name, rows=options.rows, **facts)


def _opened(work: Path, population: Population, form: Form, transform: Transform | None) -> UserTable:
    """Return the table of a form, written where it is missing."""
    directory = work / f"{population.name}-{form.name(population.dim).replace(' ', '').replace(',', '-')}"
    if not (directory / "table.json").exists():
        chunks = ((rows if transform is None else transform.rows(rows), None, None) for rows in population.chunks())
        form.write(directory, population.dim, chunks, nearest, bias=False)
    return UserTable.open(directory, threads=2)


def _print(case: str, **values: Any) -> None:
    print(json.dumps({"benchmark": "refinement", "case": case, **values}), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = parser.add_subparsers(required=True)
    checkpoint = cases.add_parser("checkpoint")
    checkpoint.add_argument("checkpoint", type=Path)
    checkpoint.add_argument("dataset", type=Path)
    checkpoint.add_argument("--states", type=Path)
    checkpoint.set_defaults(measure=of_checkpoint)
    rows = cases.add_parser("rows")
    rows.add_argument("--kind", choices=PROFILES, default="citeulike-a")
    rows.add_argument("--rows", type=int, default=1_000_000)
    rows.add_argument("--dim", type=int, default=256)
    rows.add_argument("--repeats", type=int, default=31)
    rows.add_argument("--work", type=Path, required=True)
    rows.set_defaults(measure=of_rows)
    options = parser.parse_args()
    options.measure(options)


if __name__ == "__main__":
    main()
