"""Tables whose tiles are clustered: what is left unread must not be missed, and what a budget cuts off is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export import TopK, UserTable, _core
from fllm_export.engines.registry import ENGINES
from fllm_export.table.codecs import codec

GENERATOR = np.random.default_rng(0)
BASIS = GENERATOR.standard_normal((6, 40)).astype(np.float32)
ROWS = GENERATOR.standard_normal((20_000, 6)).astype(np.float32) @ BASIS
ROWS *= GENERATOR.lognormal(0, 0.5, (20_000, 1)).astype(np.float32)
ITEMS = GENERATOR.standard_normal((130, 6)).astype(np.float32) @ BASIS
IDS = GENERATOR.permutation(1 << 20)[:20_000]


def both(directory: Path, threads: int = 2) -> tuple[UserTable, UserTable]:
    return UserTable.open(directory, engine="native", threads=threads), UserTable.open(directory, engine="numpy")


def assert_same_users(found: TopK, expected: TopK, *, bits: bool) -> None:
    if bits:
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


@pytest.mark.parametrize("isa", _core.cpu_levels())
@pytest.mark.parametrize("quant", ENGINES["native"].codecs)
@pytest.mark.parametrize("biased", [False, True])
def test_answers_are_the_reference_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: str, quant: str, biased: bool
) -> None:
    monkeypatch.setenv("FLLM_ISA", isa)
    bias = GENERATOR.standard_normal(len(ROWS)).astype(np.float32) * 3 if biased else None
    UserTable.create(tmp_path / "t", ROWS, IDS, bias=bias, quant=quant, cluster="yes", shard_bytes=1 << 19)
    native, reference = both(tmp_path / "t")
    bits = codec(quant).exact_query
    for batch in (1, 3, 20, 130):
        for k in (1, 100):
            expected = reference.topk(ITEMS[:batch], k)
            for log_probs in ("none", "exact"):
                found = native.topk(ITEMS[:batch], k, log_probs=log_probs)
                assert_same_users(found, expected, bits=bits)
                assert found.complete.all()
                assert (found.coverage == 1).all()
    np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
    everybody = native.topk(ITEMS[:2], len(ROWS), log_probs="none")
    assert_same_users(everybody, reference.topk(ITEMS[:2], len(ROWS)), bits=bits)
    sampled = {"mode": "sample", "seed": 5}
    assert_same_users(native.topk(ITEMS[:3], 50, **sampled), reference.topk(ITEMS[:3], 50, **sampled), bits=bits)


def test_sketch_and_bounds_together(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS, IDS, cluster="yes", sketch="yes")
    native, reference = both(tmp_path / "t")
    for batch in (1, 5, 40):
        found = native.topk(ITEMS[:batch], 100, log_probs="none")
        assert_same_users(found, reference.topk(ITEMS[:batch], 100), bits=True)
    found = native.topk(ITEMS[:5], 100, exact=False)
    assert (np.abs(found.logsumexp - reference.topk(ITEMS[:5], 100).logsumexp) < 0.1).all()


@pytest.mark.parametrize("quant", ["int8", "fp16", "int4"])
def test_some_tiles_are_read_by_the_sketch_and_others_scored_whole(tmp_path: Path, quant: str) -> None:
    """Groups of items that want tiles of their own, beside tiles that all of them want."""
    far = np.concatenate([ROWS, 8 * ITEMS[:64].repeat(16, 0) + GENERATOR.standard_normal((1024, 40))])
    UserTable.create(tmp_path / "t", far.astype(np.float32), quant=quant, cluster="yes", sketch="yes", bias=far[:, 0])
    native, reference = both(tmp_path / "t")
    for batch in (3, 9, 33, 130):
        expected = reference.topk(ITEMS[:batch], 50)
        found = native.topk(ITEMS[:batch], 50, log_probs="none")
        assert_same_users(found, expected, bits=quant != "fp16")
        assert found.complete.all()
        timed = native.topk(ITEMS[:batch], 50, log_probs="none", budget_ms=60_000)
        assert_same_users(timed, expected, bits=quant != "fp16")


def test_filters_reach_rows_below_the_best(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS, IDS, cluster="yes")
    native, reference = both(tmp_path / "t")
    ranked = reference.topk(ITEMS[:3], len(ROWS))
    for allowed in (np.sort(IDS)[::977], IDS[:1], IDS):
        for options in ({"allow": allowed}, {"deny": allowed[: len(allowed) // 2]}):
            found = native.topk(ITEMS[:3], 10, filter=native.filter(**options), log_probs="none")
            for item in range(3):
                kept = np.isin(ranked.user_ids[item], next(iter(options.values())), invert="deny" in options)
                best = ranked.user_ids[item][kept][:10]
                np.testing.assert_array_equal(found.user_ids[item][: len(best)], best)
                assert (found.user_ids[item][len(best) :] == -1).all()


@pytest.mark.parametrize("batch", [1, 40])
def test_a_cut_off_answer_tells_the_truth(tmp_path: Path, batch: int) -> None:
    UserTable.create(tmp_path / "t", np.tile(ROWS, (8, 1)), cluster="yes")
    native, _ = both(tmp_path / "t", threads=1)
    whole = native.topk(ITEMS[:batch], 20, log_probs="none")
    cut = native.topk(ITEMS[:batch], 20, log_probs="none", budget_ms=1e-6)
    assert ((cut.coverage == 1) == cut.complete).all()
    assert (cut.coverage > 0).all()
    for item in np.flatnonzero(cut.complete):
        np.testing.assert_array_equal(cut.user_ids[item], whole.user_ids[item])
    # The first turn of one item is its most promising tiles, and what they leave over is mostly ruled out.
    if batch == 1:
        assert len(np.intersect1d(cut.user_ids, whole.user_ids)) >= 10
    # A denominator is known as far as rows were scored, or proven to add next to nothing.
    scored, summed = native.topk(ITEMS[:batch], 20, budget_ms=1e-6), native.topk(ITEMS[:batch], 20)
    assert ((scored.coverage == 1) == scored.complete).all()
    np.testing.assert_array_equal(scored.log_probs_exact, scored.complete)
    np.testing.assert_array_equal(np.isnan(scored.log_prob_error), ~scored.complete)
    known = scored.complete
    np.testing.assert_allclose(scored.logsumexp[known], summed.logsumexp[known], rtol=1e-5)
