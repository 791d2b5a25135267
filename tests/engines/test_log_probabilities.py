"""Log-probabilities that are estimated or certified: equal to the reference engine's, and within the error told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import TopK, UsageError, UserTable, _core
from fllm_export.engines.panel import SUMMED_ROWS, Panel
from fllm_export.engines.registry import ENGINES
from fllm_export.table.table import Table

GENERATOR = np.random.default_rng(0)
BASIS = GENERATOR.standard_normal((6, 40)).astype(np.float32)
ROWS = GENERATOR.standard_normal((20_000, 6)).astype(np.float32) @ BASIS
ROWS *= GENERATOR.lognormal(0, 0.5, (20_000, 1)).astype(np.float32)
ITEMS = GENERATOR.standard_normal((70, 6)).astype(np.float32) @ BASIS
FLAT, STEEP = np.float32(0.02), np.float32(0.1)


def both(directory: Path) -> tuple[UserTable, UserTable]:
    return UserTable.open(directory, engine="native", threads=2), UserTable.open(directory, engine="numpy")


def assert_within_told(found: TopK, exact: TopK) -> None:
    assert (np.abs(found.logsumexp - exact.logsumexp) <= found.log_prob_error).all()


@pytest.mark.parametrize("isa", _core.cpu_levels())
@pytest.mark.parametrize("quant", ENGINES["native"].codecs)
@pytest.mark.parametrize("cluster", ["yes", "no"])
def test_estimates_are_the_reference_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: str, quant: str, cluster: str
) -> None:
    monkeypatch.setenv("FLLM_ISA", isa)
    UserTable.create(tmp_path / "t", ROWS, bias=ROWS[:, 0] / 8, quant=quant, cluster=cluster, shard_bytes=1 << 19)
    native, reference = both(tmp_path / "t")
    for z in (ITEMS[:9] * FLAT, ITEMS[9:18] * STEEP):
        exact = reference.topk(z, 50)
        found = native.topk(z, 50, log_probs="estimate")
        expected = reference.topk(z, 50, log_probs="estimate")
        np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
        np.testing.assert_allclose(found.log_prob_error, expected.log_prob_error, rtol=1e-2, atol=1e-5)
        assert not found.log_probs_exact.any()
        assert_within_told(found, exact)


def test_an_estimate_reads_fewer_rows_than_there_are_and_tells_so(tmp_path: Path) -> None:
    """On a flat distribution the sample errs: a sum over every row would not."""
    UserTable.create(tmp_path / "t", ROWS, cluster="yes")
    native, _ = both(tmp_path / "t")
    z = ITEMS * (FLAT / 8)
    found, exact = native.topk(z, 100, log_probs="estimate"), native.topk(z, 100)
    off = np.abs(found.logsumexp - exact.logsumexp)
    assert 1e-5 < np.median(off) < 0.02
    assert (found.log_prob_error < 0.1).all()
    assert not found.log_probs_certified.any()
    assert_within_told(found, exact)
    np.testing.assert_array_equal(found.logsumexp, native.topk(z, 100, log_probs="estimate").logsumexp)


def test_an_estimate_of_a_steep_distribution_is_certified(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS, cluster="yes")
    native, _ = both(tmp_path / "t")
    found, exact = native.topk(ITEMS, 100, log_probs="estimate"), native.topk(ITEMS, 100)
    assert found.log_probs_certified.mean() > 0.9
    assert_within_told(found, exact)


@pytest.mark.parametrize("length", [FLAT, STEEP, np.float32(1)])
@pytest.mark.parametrize("batch", [1, 20, 70])
def test_certified_answers_keep_their_word(tmp_path: Path, length: np.float32, batch: int) -> None:
    UserTable.create(tmp_path / "t", ROWS, cluster="yes")
    native, reference = both(tmp_path / "t")
    z = ITEMS[:batch] * length
    exact = reference.topk(z, 100)
    for log_probs in ("certified", "exact"):
        found = native.topk(z, 100, log_probs=log_probs)
        np.testing.assert_array_equal(found.user_ids, exact.user_ids)
        assert found.log_probs_certified.all()
        assert (found.log_probs_exact == (log_probs == "exact")).all()
        assert_within_told(found, exact)
    np.testing.assert_allclose(found.logsumexp, exact.logsumexp, rtol=1e-5)


def test_deleted_rows_and_filters(tmp_path: Path) -> None:
    table = UserTable.create(tmp_path / "t", ROWS, cluster="yes")
    table.delete(np.arange(0, 20_000, 3))
    native, reference = both(tmp_path / "t")
    z = ITEMS[:9] * FLAT
    best = reference.topk(z, 50).user_ids[0]
    for options in ({}, {"filter": native.filter(deny=best)}):
        exact = reference.topk(z, 50)
        found = native.topk(z, 50, log_probs="estimate", **options)
        expected = reference.topk(z, 50, log_probs="estimate", **options)
        np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
        np.testing.assert_allclose(found.log_prob_error, expected.log_prob_error, rtol=1e-2, atol=1e-5)
        assert_within_told(found, exact)


def test_the_panel_has_one_row_of_each_part(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS)
    panel = Panel.of(Table(tmp_path / "t"))
    np.testing.assert_array_equal(panel.rows // panel.part_rows, panel.filled)
    places = np.bincount(panel.rows % panel.part_rows, minlength=panel.part_rows)
    assert (np.abs(places - len(panel.rows) / panel.part_rows) < 5 * np.sqrt(len(panel.rows))).all()


@pytest.mark.parametrize("options", [{}, {"cluster": "yes", "sketch": "yes"}])
def test_a_small_table_is_summed_up(tmp_path: Path, options: dict[str, Any]) -> None:
    for rows, summed in ((SUMMED_ROWS, True), (SUMMED_ROWS + 1, False)):
        UserTable.create(tmp_path / str(rows), ROWS[:rows], **options)
        for table in both(tmp_path / str(rows)):
            for items in (1, 70):
                exact = table.topk(ITEMS[:items] * FLAT, 10)
                found = table.topk(ITEMS[:items] * FLAT, 10, log_probs="estimate")
                assert (found.log_probs_exact == summed).all()
                assert found.log_probs_certified.all() == summed
                assert np.allclose(found.logsumexp, exact.logsumexp, rtol=1e-6) == summed


@pytest.mark.parametrize("options", [{}, {"sketch": "yes"}, {"cluster": "yes"}, {"cluster": "yes", "sketch": "yes"}])
def test_the_estimate_of_an_item_is_the_same_in_any_company(tmp_path: Path, options: dict[str, Any]) -> None:
    UserTable.create(tmp_path / "t", ROWS, bias=ROWS[:, 0] / 8, **options)
    for table in both(tmp_path / "t"):
        for length in (FLAT, STEEP):
            together = table.topk(ITEMS * length, 20, log_probs="estimate")
            for i in range(0, len(ITEMS), 6):
                alone = table.topk(ITEMS[i : i + 1] * length, 20, log_probs="estimate")
                np.testing.assert_array_equal(alone.user_ids[0], together.user_ids[i])
                np.testing.assert_array_equal(alone.scores[0], together.scores[i])
                np.testing.assert_array_equal(alone.log_probs[0], together.log_probs[i])
                np.testing.assert_allclose(alone.log_prob_error[0], together.log_prob_error[i], rtol=1e-6)


def test_certified_log_probabilities_need_an_exact_search(tmp_path: Path) -> None:
    table = UserTable.create(tmp_path / "t", ROWS[:100])
    with pytest.raises(UsageError, match="'certified' while exact is False"):
        table.topk(ITEMS[0], 5, exact=False, log_probs="certified")
