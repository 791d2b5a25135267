"""How many rows a sketch leaves to be read, by kind of table, and what that makes of the bytes of a full int8 pass.

    python -m benchmarks.sketch_study [--rows 200000] [--bundle BUNDLE ITEMS] ... [--bases]

Synthetic tables are always studied; BUNDLE is a directory with a user table and an encoder, ITEMS a Parquet file with
a column `text`. A trained table is grown to --rows by a smoothed bootstrap that keeps its second moment. Bounds are
checked against every score. Prints one JSON line a case, then a table. Counted as read: the sketch's bytes of every
row, and for a row that is not ruled out its codes and scale and 64 bytes more, for the cache lines that they begin and
end in. With --bases, the rotation by signs is compared with a dense one of all dimensions, which are a power of two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export import Runtime, UserTable
from fllm_export.cli.output import columns
from fllm_export.table import sketch
from fllm_export.table.codecs import codec

K = 100
QUERIES = 24
DEVIATIONS = 3.5
CHUNK = 65_536
NOISE = 0.5

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A table and item vectors; those of ``known`` may shape the basis, those of ``asked`` are scored."""

    name: str
    rows: F32
    asked: F64
    known: F32 | None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--bundle", type=Path, nargs=2, action="append", default=[], metavar=("BUNDLE", "ITEMS"))
    parser.add_argument("--bases", action="store_true", help="compare bases of all dimensions instead")
    options = parser.parse_args()
    if options.bases:
        return compare_bases(options.rows)
    lines = []
    for case in cases(options.rows, options.bundle):
        dim = case.rows.shape[1]
        scores = case.rows.astype(np.float64) @ case.asked.T
        for dims in sorted({dim // 2, dim}):
            for fine in (False, True):
                sample = case.rows[:: max(1, len(scores) // 50_000)]
                found = study(case, scores, sketch.make_basis(dim, dims, sample, case.known), fine=fine)
                print(json.dumps({"benchmark": "sketch", "case": case.name, "rows": len(scores), "dim": dim, **found}))
                lines.append([case.name, str(dims), "4" if fine else "2", *shown(found)])
    header = ["table", "dims", "bits", "bytes", "proved: left", "bytes read", "estimated: left", "bytes read", "recall"]
    print("\n" + columns(header, lines))


def compare_bases(count: int) -> None:
    """Print what rotations of all dimensions leave, by signs and by a dense basis."""
    lines = []
    for case in populations(count):
        dim = case.rows.shape[1]
        scores = case.rows.astype(np.float64) @ case.asked.T
        dense = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0].astype(np.float32)
        for fine in (False, True):
            for name, basis in (("dense", dense), ("signs", sketch.make_basis(dim, dim))):
                found = study(case, scores, basis, fine=fine)
                print(json.dumps({"benchmark": "bases", "case": case.name, "basis": name, "fine": fine, **found}))
                lines.append([case.name, name, "4" if fine else "2", *shown(found)])
    header = [
        "table",
        "basis",
        "bits",
        "bytes",
        "proved: left",
        "bytes read",
        "estimated: left",
        "bytes read",
        "recall",
    ]
    print("\n" + columns(header, lines))


def populations(count: int) -> Iterator[Case]:
    """Yield rows of full rank, rows like trained ones, and rows drawn from the moments of trained tables."""
    from benchmarks.native.population import Kind, Population

    kinds: list[tuple[Kind, int]] = [("gaussian", 128), ("gaussian", 256), ("trained", 128), ("trained", 256)]
    kinds += [("movielens-1m", 128), ("citeulike-a", 256)]
    for kind, dim in kinds:
        population = Population(kind, count, dim, 0)
        asked = population.items(QUERIES).astype(np.float64)
        yield Case(f"{kind}, d={dim}", as_stored(population.all_rows()), asked, None)


def shown(found: dict[str, float]) -> list[str]:
    """Return a case's numbers as cells."""
    return [
        f"{found['sketch_bytes']:.0f}",
        f"{found['proved_left']:.2%}",
        f"{found['proved_ratio']:.3f}",
        f"{found['estimated_left']:.2%}",
        f"{found['estimated_ratio']:.3f}",
        f"{found['recall']:.4f}",
    ]


def cases(count: int, bundles: list[list[Path]]) -> Iterator[Case]:
    """Yield the tables to study, int8 values all of them."""
    generator = np.random.default_rng(0)
    for dim in (128, 256):
        rows = generator.standard_normal((count, dim), dtype=np.float32)
        yield Case(f"full rank, d={dim}", as_stored(rows), generator.standard_normal((QUERIES, dim)), None)
    decay = np.arange(1, 129, dtype=np.float32) ** -0.5
    rows = generator.standard_normal((count, 128), dtype=np.float32) * decay
    rows *= np.exp(0.3 * generator.standard_normal((count, 1), dtype=np.float32))
    asked = generator.standard_normal((QUERIES, 128)) * decay
    yield Case("decaying spectrum, spread norms, d=128", as_stored(rows), asked, None)
    for bundle, items in bundles:
        yield from trained(bundle, items, count)


def trained(bundle: Path, items: Path, count: int) -> Iterator[Case]:
    """Yield a bundle's own table and its grown form, without and with known item vectors."""
    import pyarrow.parquet as pq

    rows = np.concatenate([chunk for _, chunk in UserTable.open(bundle / "users").decoded()])
    texts = pq.read_table(items, columns=["text"])["text"].to_pylist()
    order = np.random.default_rng(0).permutation(len(texts))[:600]
    runtime = Runtime.open(bundle)
    z = np.concatenate([runtime.encode([texts[i] for i in part]) for part in np.array_split(order, 10)])
    asked, known = z[:QUERIES].astype(np.float64), z[QUERIES:]
    size = f"d={rows.shape[1]}"
    yield Case(f"{items.parent.name}, {len(rows)} users, {size}", rows, asked, None)
    larger = as_stored(grow(rows, count))
    yield Case(f"{items.parent.name} grown, {size}", larger, asked, None)
    yield Case(f"{items.parent.name} grown, items known, {size}", larger, asked, known)


def grow(rows: F32, count: int) -> F32:
    """Draw rows again and mix them with Gaussian rows of the same mean and covariance."""
    generator = np.random.default_rng(1)
    mean = rows.mean(0)
    root = np.linalg.cholesky(np.cov(rows.T) + 1e-6 * np.eye(rows.shape[1])).astype(np.float32)
    drawn = rows[generator.integers(0, len(rows), count)]
    noise = generator.standard_normal(drawn.shape, dtype=np.float32) @ root.T
    return mean + np.sqrt(1 - NOISE**2, dtype=np.float32) * (drawn - mean) + np.float32(NOISE) * noise


def as_stored(rows: F32) -> F32:
    """Return the rows that an int8 table of these holds."""
    int8 = codec("int8")
    return int8.decode(int8.encode(rows.astype(np.float32)), rows.shape[1])


def study(case: Case, scores: F64, basis: F32, *, fine: bool) -> dict[str, float]:
    """Return what a sketch of that basis leaves, when its bounds prove and when they estimate.

    The thresholds are the final ones; recall is that of the estimates, whose bounds lie DEVIATIONS above them.
    """
    (count, dim), dims = case.rows.shape, len(basis)
    prepared = [sketch.query(values, basis) for values in case.asked]
    thresholds = np.partition(scores, count - K, axis=0)[count - K]
    left, kept, found = np.zeros(3)
    for start in range(0, count, CHUNK):
        rows = case.rows[start : start + CHUNK]
        stored = sketch.encode(rows, basis)
        codes, factors = (part(stored, fine=fine) for part in (sketch.codes, sketch.factors))
        products = codes[: len(rows)] @ np.stack([query.limb for query in prepared], 1).astype(np.float64)
        for item, query in enumerate(prepared):
            read = products[:, item], factors[:, : len(rows)]
            _, bounds = sketch.bounds_of(*read, query, fine=fine)
            if (bounds < scores[start : start + CHUNK, item]).any():
                raise SystemExit(f"{case.name}: a bound lies below its score")
            left += (bounds >= thresholds[item]).sum()
            _, raised = sketch.bounds_of(*read, query.statistical(dim, DEVIATIONS, fine=fine), fine=fine)
            reached = raised >= thresholds[item]
            kept += reached.sum()
            found += (reached & (scores[start : start + CHUNK, item] >= thresholds[item])).sum()
    sketch_bytes = dims / (2 if fine else 4) + (4 if dims >= dim else 6)
    pairs = count * len(prepared)
    proved, estimated = float(left) / pairs, float(kept) / pairs
    full, survivor = dim + 4, dim + 4 + 64
    return {
        "dims": dims,
        "bits": 4 if fine else 2,
        "sketch_bytes": sketch_bytes,
        "proved_left": proved,
        "proved_ratio": (sketch_bytes + proved * survivor) / full,
        "deviations": DEVIATIONS,
        "estimated_left": estimated,
        "estimated_ratio": (sketch_bytes + estimated * survivor) / full,
        "recall": float(found / (scores >= thresholds).sum()),
    }


if __name__ == "__main__":
    main()
