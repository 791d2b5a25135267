"""Tables whose link is a power: every engine gives the reference's users, scores and probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import TopK, UsageError, UserTable, _core
from fllm_export.engines.registry import ENGINES
from tests.linked import set_link

GENERATOR = np.random.default_rng(3)
BASIS = GENERATOR.standard_normal((6, 40)).astype(np.float32)
ROWS = GENERATOR.standard_normal((20_000, 6)).astype(np.float32) @ BASIS
ROWS *= GENERATOR.lognormal(0, 0.5, (20_000, 1)).astype(np.float32)
BIAS = ROWS[:, 0] / 8
ITEMS = GENERATOR.standard_normal((40, 6)).astype(np.float32) @ BASIS * np.float32(0.1)
SHARD = 1 << 19


def made(directory: Path, exponent: int, **options: Any) -> tuple[UserTable, UserTable]:
    """Write a table with a link, and open it by the engines native and numpy."""
    UserTable.create(directory, ROWS, bias=BIAS, **{"shard_bytes": SHARD, **options})
    set_link(directory, exponent)
    return UserTable.open(directory, engine="native", threads=2), UserTable.open(directory, engine="numpy")


def assert_alike(found: TopK, expected: TopK, *, exact_scores: bool = True) -> None:
    np.testing.assert_array_equal(found.user_ids, expected.user_ids)
    if exact_scores:
        np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=3e-4)
    np.testing.assert_allclose(found.log_prob_error, expected.log_prob_error, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("exponent", [1, 2, 3, 4])
def test_probabilities_are_those_of_the_definition(tmp_path: Path, exponent: int) -> None:
    native, reference = made(tmp_path / "t", exponent, quant="fp32")
    scores = ITEMS[:9].astype(np.float64) @ ROWS.T.astype(np.float64) + BIAS
    weights = 1 + np.maximum(scores, 0) ** exponent
    expected = np.log(weights / weights.sum(1, keepdims=True))
    for table in (native, reference):
        assert table.link.exponent == exponent
        answer = table.topk(ITEMS[:9], 30)
        np.testing.assert_array_equal(answer.user_ids, np.argsort(-scores, axis=1, kind="stable")[:, :30])
        np.testing.assert_allclose(answer.log_probs, np.take_along_axis(expected, answer.user_ids, 1), atol=1e-4)


@pytest.mark.parametrize("isa", _core.cpu_levels())
@pytest.mark.parametrize("quant", ENGINES["native"].codecs)
@pytest.mark.parametrize("cluster", ["yes", "no"])
def test_all_kinds_of_log_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: str, quant: str, cluster: str
) -> None:
    monkeypatch.setenv("FLLM_ISA", isa)
    native, reference = made(tmp_path / "t", 2 if cluster == "yes" else 3, quant=quant, cluster=cluster)
    for z in (ITEMS[:1], ITEMS[:9], ITEMS):
        exact = reference.topk(z, 50)
        for log_probs in ("exact", "certified", "estimate", "none"):
            found = native.topk(z, 50, log_probs=log_probs)
            same = quant not in ("fp32", "fp16")
            np.testing.assert_array_equal(found.user_ids, exact.user_ids)
            if log_probs == "estimate":
                assert_alike(found, reference.topk(z, 50, log_probs="estimate"), exact_scores=same)
            if log_probs == "exact":
                assert_alike(found, exact, exact_scores=same)
            if log_probs != "none":
                assert (np.abs(found.logsumexp - exact.logsumexp) <= found.log_prob_error).all()
        assert np.isnan(native.topk(z, 50, log_probs="none").log_probs).all()


@pytest.mark.parametrize("batch", [1, 12, 40])
def test_deleted_rows_filters_and_budgets(tmp_path: Path, batch: int) -> None:
    native, reference = made(tmp_path / "t", 2, cluster="yes", sketch="yes")
    native.delete(np.arange(0, 20_000, 3))
    for table in (native, reference):
        table.reopen()
    z = ITEMS[:batch]
    exact = reference.topk(z, 50)
    assert_alike(native.topk(z, 50), exact)
    live = np.setdiff1d(np.arange(20_000), np.arange(0, 20_000, 3))
    assert native.topk(z, len(live)).user_ids.shape == (batch, len(live))
    np.testing.assert_allclose(np.exp(native.topk(z, len(live)).log_probs.astype(np.float64)).sum(1), 1, rtol=1e-4)
    for options in ({"deny": exact.user_ids[0]}, {"allow": live[:300]}):
        chosen = {"filter": native.filter(**options)}
        assert_alike(native.topk(z, 50, **chosen), reference.topk(z, 50, **chosen))
        estimated = native.topk(z, 50, log_probs="estimate", **chosen)
        expected = reference.topk(z, 50, log_probs="estimate", **chosen)
        np.testing.assert_allclose(estimated.logsumexp, expected.logsumexp, rtol=1e-5)
        assert (np.abs(estimated.logsumexp - exact.logsumexp) <= estimated.log_prob_error).all()
    cut = native.topk(z, 50, budget_ms=1e-6)
    assert (cut.coverage < 1).all()
    assert (cut.logsumexp < exact.logsumexp).all()


@pytest.mark.parametrize("quant", ["int8", "fp8", "int4row"])
def test_samples_are_bit_identical(tmp_path: Path, quant: str) -> None:
    native, reference = made(tmp_path / "t", 2, quant=quant)
    for z in (ITEMS[:1], ITEMS[:9]):
        seeds = list(range(len(z)))
        found, expected = (t.topk(z, 64, mode="sample", seed=seeds) for t in (native, reference))
        assert_alike(found, expected)


def test_samples_are_drawn_by_the_probabilities_of_the_link(tmp_path: Path) -> None:
    native, _ = made(tmp_path / "t", 2)
    first = [native.topk(ITEMS[:1], 1, mode="sample", seed=seed) for seed in range(400)]
    scores = np.array([answer.scores[0, 0] for answer in first])
    everyone = native.topk(ITEMS[:1], 20_000)
    expected = np.exp(everyone.log_probs[0]) @ everyone.scores[0]
    spread = np.sqrt(np.exp(everyone.log_probs[0]) @ (everyone.scores[0] - expected) ** 2)
    assert abs(scores.mean() - expected) < 4 * spread / np.sqrt(len(scores))
    assert abs(scores.mean() - everyone.scores[0].mean()) > 4 * spread / np.sqrt(len(scores))


@pytest.mark.parametrize("mode", ["topk", "sample"])
def test_refined_tables(tmp_path: Path, mode: str) -> None:
    native, reference = made(tmp_path / "t", 2, quant="int2", refine="int8", cluster="yes")
    for refine in (0, 1, 4):
        found, expected = (t.topk(ITEMS, 20, mode=mode, seed=5, refine=refine) for t in (native, reference))
        assert_alike(found, expected)


@pytest.mark.parametrize("quant", ["int8", "fp16", "int2", "int1"])
def test_the_head_graph(tmp_path: Path, quant: str) -> None:
    pytest.importorskip("onnx")
    from fllm_export.graphs.heads import bundle_heads

    _, reference = made(tmp_path / "t", 3, quant=quant)
    (tmp_path / "head").mkdir()
    model = bundle_heads(quant, 40, bias=True)["tile"]
    (tmp_path / "head" / "tile.onnx").write_bytes(model.SerializeToString())
    table = UserTable.open(tmp_path / "t", engine="onnxruntime", head=tmp_path / "head")
    for options in ({}, {"mode": "sample", "seed": 4}):
        found, expected = (t.topk(ITEMS[:5], 20, **options) for t in (table, reference))
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)


def test_scores_beyond_the_largest_count_as_the_largest(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", np.full((3000, 8), 1e6, np.float32))
    set_link(tmp_path / "t", 4)
    for engine in ("native", "numpy"):
        table = UserTable.open(tmp_path / "t", engine=engine)
        for z in (np.full((1, 8), 1e6, np.float32), np.full((20, 8), 1e6, np.float32)):
            for log_probs in ("exact", "estimate"):
                answer = table.topk(z, 5, log_probs=log_probs)
                np.testing.assert_allclose(answer.logsumexp, 120 * np.log(2) + np.log(3000), rtol=1e-5)
                np.testing.assert_allclose(answer.log_probs, -np.log(3000), rtol=1e-3)


@pytest.mark.parametrize("engine", ["native", "numpy"])
def test_a_table_that_is_opened_again_keeps_its_link(tmp_path: Path, engine: str) -> None:
    UserTable.create(tmp_path / "t", ROWS[:100])
    set_link(tmp_path / "t", 2)
    table = UserTable.open(tmp_path / "t", engine=engine)
    set_link(tmp_path / "t", 3)
    with pytest.raises(UsageError, match="link"):
        table.reopen()
    assert table.link.exponent == 2


def test_changes_keep_the_link(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS[:100])
    set_link(tmp_path / "t", 2)
    table = UserTable.open(tmp_path / "t")
    table.append(ROWS[100:200], np.arange(100, 200))
    table.delete([3])
    table.compact()
    assert table.generation == 4
    assert UserTable.open(tmp_path / "t").link.exponent == 2
