"""On tables that are hard to sum up, the logsumexp of every row lies within the error that an answer tells."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from fllm_export import TopK, UserTable

DIM = 16


def hostile_rows(generator: np.random.Generator, spectrum: str, count: int) -> np.ndarray:
    """Return float32 rows [count, DIM] of a kind that a sample represents badly."""
    rows = generator.standard_normal((count, DIM))
    if spectrum == "zero":  # most rows have the score 0
        rows[generator.random(count) < 0.9] = 0
    elif spectrum == "heavy":  # few norms are far beyond all others
        rows *= generator.pareto(0.9, (count, 1))
    elif spectrum == "huge":
        rows *= 1e4
    elif spectrum == "one":  # one user holds nearly all of the probability of some items
        rows *= 0.05
        rows[generator.integers(count)] = 40 * generator.standard_normal(DIM)
    elif spectrum == "flat":
        rows *= 1e-3
    elif spectrum == "thin":  # groups of neighbours, as clustered tiles hold them
        rows = 6 * generator.standard_normal((12, DIM))[np.sort(generator.integers(12, size=count))] + 0.1 * rows
    return rows.astype(np.float32)


def assert_told(found: TopK, exact: TopK, *, known: bool = True) -> None:
    off, told = np.abs(found.logsumexp - exact.logsumexp), found.log_prob_error
    unknown = np.isnan(told)
    assert not (known and unknown.any())
    assert (off[~unknown] <= told[~unknown]).all(), (off, told)
    assert not (found.log_probs_certified & unknown).any()
    np.testing.assert_allclose(found.log_probs, found.scores - found.logsumexp[:, None], rtol=1e-4, atol=1e-4)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "seed": draw(st.integers(0, 1 << 30)),
        "spectrum": draw(st.sampled_from(["normal", "zero", "heavy", "huge", "one", "flat", "thin"])),
        "rows": draw(st.sampled_from([40, 16_385, 20_011, 36_001])),
        "options": {
            "quant": draw(st.sampled_from(["int8", "fp16", "fp32", "int4", "int2", "int1"])),
            "cluster": draw(st.sampled_from(["yes", "no"])),
            "shard_bytes": draw(st.sampled_from([1 << 17, 1 << 22])),
        },
        "sketch": draw(st.booleans()),
        "bias": draw(st.sampled_from([0.0, 1.0, 30.0])),
        "deleted": draw(st.sampled_from([0.0, 0.3, 0.95])),
        "filter": draw(st.sampled_from([None, "deny", "allow"])),
        "items": draw(st.sampled_from([1, 4, 6])),
        "k": draw(st.sampled_from([1, 20])),
    }


def made(directory: Path, case: dict[str, Any], generator: np.random.Generator) -> UserTable:
    count, options = case["rows"], dict(case["options"])
    options["sketch"] = "yes" if case["sketch"] and options["quant"] == "int8" else "no"
    bias = case["bias"] * generator.standard_normal(count).astype(np.float32) if case["bias"] else None
    table = UserTable.create(directory, hostile_rows(generator, case["spectrum"], count), bias=bias, **options)
    if case["deleted"]:
        table.delete(np.flatnonzero(generator.random(count) < case["deleted"])[: count - 20])
    return table


def filters(table: UserTable, case: dict[str, Any], best: np.ndarray) -> dict[str, Any]:
    """Return the options that refuse the best user of an item, or accept it alone."""
    return {} if case["filter"] is None else {"filter": table.filter(**{case["filter"]: best[:1]})}


@settings(max_examples=60, derandomize=True)
@given(cases())
def test_the_exact_logsumexp_lies_within_the_error_told(case: dict[str, Any]) -> None:
    generator = np.random.default_rng(case["seed"])
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder) / "t", case, generator)
        native = UserTable.open(Path(folder) / "t", engine="native", threads=2)
        reference = UserTable.open(Path(folder) / "t", engine="numpy")
        z = generator.standard_normal((case["items"], DIM)).astype(np.float32)
        exact = reference.topk(z, case["k"])
        wanted = filters(native, case, exact.user_ids[0])
        known = case["filter"] is None  # a refused user may have any score up to the bounds, which may be too much
        for log_probs in ("estimate", "certified", "exact"):
            assert_told(native.topk(z, case["k"], log_probs=log_probs, **wanted), exact, known=known)
        assert_told(native.topk(z, case["k"], exact=False, **wanted), exact, known=known)
        wanted = filters(reference, case, exact.user_ids[0])
        assert_told(reference.topk(z, case["k"], log_probs="estimate", **wanted), exact, known=known)
        assert_told(native.topk(z, case["k"], log_probs="estimate", budget_ms=1e-6), exact, known=False)


@pytest.mark.parametrize("cluster", ["yes", "no"])
def test_a_user_who_holds_nearly_everything_and_is_refused_still_counts(tmp_path: Path, cluster: str) -> None:
    """The sample does not hold this user, and the search does not find it."""
    rows = np.random.default_rng(0).standard_normal((24_000, DIM)).astype(np.float32) * np.float32(0.05)
    rows[4321] = 3
    UserTable.create(tmp_path / "t", rows, cluster=cluster, sketch="yes", shard_bytes=1 << 15)
    z = np.ones((5, DIM), np.float32)
    for engine in ("native", "numpy"):
        table = UserTable.open(tmp_path / "t", engine=engine)
        refusing = table.filter(deny=[4321])
        assert_told(table.topk(z, 10, log_probs="estimate", filter=refusing), table.topk(z, 10))
        assert table.topk(z, 10, log_probs="estimate", filter=refusing).logsumexp[0] > 40
