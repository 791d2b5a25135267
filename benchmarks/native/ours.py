"""The user table that is measured: the only file that knows how it is made and asked."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import numpy as np

from benchmarks.native.population import F32, Population
from fllm_export import TopK, UserTable


class Ours:
    """A table on disk, opened by the engine that is measured."""

    def __init__(self, directory: Path, engine: str, threads: int) -> None:
        self._directory = directory
        self._table = UserTable.open(directory, engine=engine, threads=threads)

    def topk(
        self, z: F32, k: int, *, exact: bool = True, log_probs: bool = False, budget_ms: float | None = None
    ) -> TopK:
        """Rank; ``exact`` only matters where there is a sketch, and without the denominator it may be used."""
        wanted = "exact" if log_probs else "none"
        return self._table.topk(z, k, exact=exact, log_probs=wanted, budget_ms=budget_ms)

    def check(self, z: F32, k: int) -> None:
        """Assert that the exact answer is the NumPy engine's: same users in the same order, same scores.

        Raises:
            AssertionError: it is not.
        """
        reference = UserTable.open(self._directory, engine="numpy").topk(z, k)
        with_denominator = self.topk(z, k, log_probs=True)
        for answer in (self.topk(z, k), with_denominator):
            np.testing.assert_array_equal(answer.user_ids, reference.user_ids)
            np.testing.assert_allclose(answer.scores, reference.scores, rtol=1e-6)
        np.testing.assert_allclose(with_denominator.log_probs, reference.log_probs, rtol=1e-5, atol=1e-4)


class Tables:
    """Tables in a working folder: each is written once in a run, and removed at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._folder.glob("users-*"):
            shutil.rmtree(path)

    def get(self, population: Population, *, quant: str = "int8", sketch: bool = False, cluster: bool = False) -> Path:
        """Return the directory of the table of a population."""
        path = self._path(population, quant, sketch, cluster)
        if not path.exists():
            options = {"sketch": "yes" if sketch else "no", "cluster": "yes" if cluster else "no"}
            UserTable.create(path, population.chunks(), quant=quant, **options)
        return path

    def drop(self, population: Population, *, quant: str = "int8", sketch: bool = False, cluster: bool = False) -> None:
        """Remove a table that takes much room."""
        gc.collect()
        shutil.rmtree(self._path(population, quant, sketch, cluster))

    def _path(self, population: Population, quant: str, sketch: bool, cluster: bool) -> Path:
        with_what = ("-sketch" if sketch else "") + ("-clustered" if cluster else "")
        return self._folder / f"users-{population.name}-{quant}{with_what}"


def table_bytes(directory: Path) -> int:
    """Return the size of a table's files."""
    return sum(path.stat().st_size for path in directory.iterdir())
