"""How rows of a given size rank: in the form that ``build --bytes-per-user`` chooses, plainly rounded, by others.

    python -m benchmarks.bytes_per_user CHECKPOINT DATASET --out RESULTS [--states STATES] [--part sizes smallest peers]

CHECKPOINT is a trained checkpoint and DATASET a directory with items.parquet and interactions.parquet. RESULTS is a
folder: item vectors and every measurement are kept in it, and a run that was interrupted continues. STATES is a NumPy
file with the encoder's states of all items in the order of the data set, [items, h]. Without it, the texts of cold
items and of up to 2,048 items of --calibrate are encoded, which takes minutes.

Bytes are those of codes, scale and bias; ids and files are left out, because other libraries count none. Item vectors
are measured on items of the split --calibrate, up to 512 others of them choose, and `cold_test` gives what is printed:
recall@100 against the fp32 rows, precision and recall@20 of an item's users, and NDCG@20 of a user's items.
Prints a Markdown table per part.

  sizes     at --bytes: the form chosen, beside the same cut and rotation with rounding to the nearest
  smallest  the smallest form that is sure to have recall@100 of 0.99, and the smallest with 99.5 % of the NDCG@20 of
            items; the second is what `cold_val` and `cold_test` both say, as one of them alone is too few items
  peers     at --peer-bytes: the form chosen beside FAISS and ScaNN, as far as they are installed
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.bytes_per_user.study import K, Study, Way, load_study
from fllm_export.calibration.row_form import FLOATS, RowForm
from fllm_export.calibration.size_search import (
    Line,
    Sized,
    Tried,
    best_within,
    chosen_smallest,
    chosen_within,
    smallest_with,
)
from fllm_export.strict_json import parse
from fllm_export.table.codec_names import CodecName
from fllm_export.table.codecs import codec

QUANTS: tuple[CodecName, ...] = ("int1", "int2", "int4row", "int4", "int8", "fp16")
BASELINES: tuple[CodecName, ...] = ("int1", "int2", "int4row", "int8")
RECALL, SHARE = 0.99, 0.995
_STEP = 16

Figures = dict[str, float]


class Results:
    """Measurements by name, a line of JSON each."""

    def __init__(self, path: Path, about: str) -> None:
        self._path, self._about = path, about
        self._found: dict[str, Figures] = {}
        lines = path.read_bytes().splitlines() if path.exists() else []
        for line in lines:
            try:
                document = parse(line)
            except ValueError:
                continue
            if isinstance(document, dict) and document.get("about") == about:
                self._found[document["name"]] = document["figures"]

    def get(self, name: str, make: Callable[[], Figures]) -> Figures:
        """Return what was measured under a name, or measure it now."""
        if name not in self._found:
            figures = make()
            # The newline before it ends a line that a kill cut short.
            with self._path.open("a") as file:
                print(
                    "\n" + json.dumps({"about": self._about, "name": name, "figures": figures}), file=file, flush=True
                )
            self._found[name] = figures
        return self._found[name]


class Bench:
    """A study and what was measured of it."""

    def __init__(self, study: Study, results: Results) -> None:
        self.study, self._results = study, results

    def screened(self, way: Way) -> Figures:
        """Return what the items that choose say of a way to store rows."""
        return self._results.get(f"choosing: {way.name}", lambda: self.study.screen(way))

    def of(self, way: Way) -> Figures:
        """Return the figures of cold items for a way to store rows."""
        return self._results.get(f"cold: {way.name}", lambda: self.study.judge(way))

    def form(self, form: RowForm) -> Figures:
        """Return the figures of cold items for a form."""
        return self.of(self.study.stored(form))

    def lines(self, *, bias: bool = True) -> list[Line]:
        """Return the forms that can be chosen, with their bytes."""
        whole = self.study.dim
        lines = []
        for quant in QUANTS:
            step = max(_STEP, codec(quant).group_dims)
            dims = [*range(step, min(whole, self.study.rank + 1), step)]
            found = [] if quant in FLOATS else [self._line(quant, "data", [*dims, whole], bias=bias)]
            lines += [*found, self._line(quant, "nearest", dims, bias=bias)]
            lines.append(self._line(quant, "nearest", [whole], bias=bias))
        return lines

    def _line(self, quant: CodecName, rounding: Any, dims: Sequence[int], *, bias: bool) -> Line:
        beside = 4 * (bias and self.study.bias is not None)
        return [Sized(RowForm(quant, dim, rounding), codec(quant).row_bytes(dim) + beside) for dim in dims]

    def by_recall(self, sized: Sized) -> Tried:
        """Return a form with the recall of the items that choose."""
        found = self.screened(self.study.stored(sized.form))
        return Tried(sized.form, sized.bytes, found["choosing_recall"], found["margin"])

    def by_ndcg(self, sized: Sized) -> Tried:
        """Return a form with the smallest share of the NDCG@20 of fp32, of both evaluators and both cold splits."""
        found, whole = self.form(sized.form), self.form(RowForm("fp32", self.study.dim, "nearest"))
        share = min(found[name] / whole[name] for name in ("val_ndcg_A", "val_ndcg_B", "ndcg_A", "ndcg_B"))
        return Tried(sized.form, sized.bytes, share, 0.0)

    def chosen(self, most: float, *, bias: bool = True) -> Tried:
        """Return the form that the items that choose rank best, of at most so many bytes."""
        return chosen_within(best_within(self.lines(bias=bias), most, self.by_recall))


def sizes(bench: Bench, at: Sequence[int]) -> Iterator[list[str]]:
    """Yield the rows of the first table."""
    study = bench.study
    yield ["bytes", "rows", "recall@100", "precision@20", "recall@20", "NDCG@20 of items, A", "B"]
    beside = 4 * (study.bias is not None)
    for size in at:
        plain = []
        for quant in BASELINES:
            dims = [dim for dim in range(_STEP, study.dim + 1, _STEP) if codec(quant).row_bytes(dim) + beside <= size]
            if dims:
                plain.append(study.reference(quant, dims[-1]))
        best = max(plain, key=lambda way: bench.screened(way)["choosing_recall"])
        yield [str(size), best.name, *_shown(bench.of(best))]
        chosen = bench.chosen(size)
        yield [str(size), f"**{chosen.form}**", *_shown(bench.form(chosen.form))]
    yield ["", "fp32", *_shown(bench.form(RowForm("fp32", study.dim, "nearest")))]


def smallest(bench: Bench) -> Iterator[list[str]]:
    """Yield the rows of the second table."""
    study = bench.study
    yield ["required", "bytes", "of fp32", "form", "recall@100", "NDCG@20 of items, of fp32: A", "B"]
    whole = bench.form(RowForm("fp32", study.dim, "nearest"))
    full = codec("fp32").row_bytes(study.dim) + 4 * (study.bias is not None)
    for words, least, measure in (
        (f"recall@{K} {RECALL:g}", RECALL, bench.by_recall),
        (f"{SHARE:.1%} of NDCG@20", SHARE, bench.by_ndcg),
    ):
        found = chosen_smallest(smallest_with(bench.lines(), least, measure), least)
        if found is None:
            yield [words, "none", "", "", "", "", ""]
            continue
        figures = bench.form(found.form)
        shares = [f"{figures[f'ndcg_{name}'] / whole[f'ndcg_{name}']:.4f}" for name in "AB"]
        yield [
            words,
            f"{found.bytes:g}",
            f"1 / {full / found.bytes:.1f}",
            str(found.form),
            f"{figures['recall']:.4f}",
            *shares,
        ]


def peers(bench: Bench, at: Sequence[int]) -> Iterator[list[str]]:
    """Yield the rows of the third table; of each library the setting that the items that choose rank best."""
    from benchmarks.bytes_per_user.peers import libraries

    yield ["bytes", "rows", "recall@100"]
    for size in at:
        for name, ways in libraries(bench.study, size).items():
            if not ways:
                yield [str(size), f"{name}: no form of that size", ""]
                continue
            way = max(ways, key=lambda one: bench.screened(one)["choosing_recall"])
            yield [str(size), way.name, f"{bench.of(way)['recall']:.4f}"]
        chosen = bench.chosen(size, bias=False)
        yield [str(size), f"**{chosen.form}**", f"{bench.form(chosen.form)['recall']:.4f}"]


def _shown(figures: Figures) -> list[str]:
    return [f"{figures[name]:.4f}" for name in ("recall", "precision", "recall_20", "ndcg_A", "ndcg_B")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--states", type=Path)
    parser.add_argument("--calibrate", choices=["train", "cold_val"], default="train")
    parser.add_argument("--part", nargs="+", choices=["sizes", "smallest", "peers"], default=["sizes", "smallest"])
    parser.add_argument("--bytes", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--peer-bytes", nargs="+", type=int, default=[32, 64, 128])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    study = load_study(options.checkpoint, options.dataset, options.out, options.states, options.calibrate)
    bench = Bench(study, Results(options.out / "bytes_per_user.jsonl", study.fingerprint))
    tables = {
        "sizes": lambda: sizes(bench, options.bytes),
        "smallest": lambda: smallest(bench),
        "peers": lambda: peers(bench, options.peer_bytes),
    }
    print(f"{options.checkpoint.name}: {json.dumps(asdict(study.facts))}")
    for part in options.part:
        rows = cast("Iterator[list[str]]", tables[part]())
        print()
        for number, row in enumerate(rows):
            print(f"| {' | '.join(row)} |", flush=True)
            if not number:
                print(f"|{' --- |' * len(row)}")


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
