"""libfllm's filters: the rows that NumPy finds, in the time that NumPy takes to sort the ids."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable, _core

ROWS, DIM = 6_000, 8


@pytest.mark.parametrize("cluster", ["no", "yes"])
@pytest.mark.parametrize("least", [0, 1 << 60])
@pytest.mark.parametrize("spread", [1, 3, 1 << 40])
def test_filters_are_those_of_numpy(cluster: str, least: int, spread: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(spread % 7)
    ids = least + np.arange(ROWS, dtype=np.int64) * spread
    rows = generator.standard_normal((ROWS, DIM)).astype(np.float32)
    UserTable.create(tmp_path / "users", rows, ids=ids, sketch="no", cluster=cluster)
    table = _core.Table.open(str(tmp_path / "users"), threads=1)
    for count in (0, 1, 50, 1000, 12_000):
        # Some ids are not in the table, and some are named twice.
        wanted = generator.choice(ids, count) + generator.integers(0, 2, count) * min(spread - 1, 1)
        wanted = np.append(wanted, [-1, np.iinfo(np.int64).max] if count % 100 == 50 else []).astype(np.int64)
        for deny in (False, True):
            expected = np.setdiff1d(ids, wanted) if deny else np.intersect1d(ids, wanted)
            allowed = table.filter(wanted, deny=deny)
            found = table.search(rows[:1], ROWS, filter=allowed)[0][0]
            assert np.array_equal(np.sort(found[: len(expected)]), expected)
            assert len(expected) == ROWS or (found[len(expected) :] == -1).all()


def seconds(work: Callable[[], object]) -> float:
    """The best of five, in processor time: other work on the machine must not count."""
    times = []
    for _ in range(5):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize("kind", ["dense", "sparse", "clustered"])
def test_a_filter_takes_the_time_of_a_sort(kind: str, tmp_path: Path) -> None:
    count = 300_000
    generator = np.random.default_rng(0)
    ids = np.arange(count) if kind == "dense" else np.sort(generator.choice(1 << 60, count, replace=False))
    rows = generator.standard_normal((count, 4)).astype(np.float32)
    UserTable.create(tmp_path / "users", rows, ids=ids, sketch="no", cluster="yes" if kind == "clustered" else "no")
    table = _core.Table.open(str(tmp_path / "users"), threads=1)
    wanted = generator.permutation(ids)
    filtering, sorting = seconds(lambda: table.filter(wanted)), seconds(lambda: np.sort(wanted))
    sys.stdout.write(f"{kind}: {count} ids: filter {filtering * 1e3:.1f} ms, np.sort {sorting * 1e3:.1f} ms\n")
    assert filtering < 3 * sorting + 0.02
