"""Tables with refinement rows in parts: the candidates and the answers are those of one machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export import BundleError, TopK, UsageError, UserTable
from fllm_export.engines.base import Answer, Request
from fllm_export.engines.refined import candidates, ranked_again
from fllm_export.engines.registry import Source
from fllm_export.link import Link
from fllm_export.scale.merge import merge, nothing
from fllm_export.scale.sharded_engine import ShardedEngine, ShardedOptions
from fllm_export.table.living import LivingTable
from fllm_export.table.options import TableOptions
from fllm_export.table.writer import TableWriter, write_table
from tests.linked import set_link

from .local_fleet import LocalFleet

GENERATOR = np.random.default_rng(3)
USERS, DIM, SHARD_BYTES = 3000, 64, 1 << 14
ROWS = GENERATOR.integers(-3, 4, (USERS, DIM)).astype(np.float32)  # small integers: many ties among scanned scores
BIAS = GENERATOR.integers(-2, 3, USERS).astype(np.float32)
IDS = GENERATOR.choice(1 << 40, USERS, replace=False)
Z = GENERATOR.integers(-2, 3, (4, DIM)).astype(np.float32) * np.float32(0.05)
TABLES = {"whole rows": ("int2", "int8", DIM), "leading dimensions": ("int2", "int8", 24), "fp16": ("int4", "fp16", 40)}
ASKED: list[dict[str, Any]] = [
    {"k": 20},
    {"k": 1, "refine": 1},
    {"k": 20, "refine": 0},
    {"k": 20, "refine": 7, "log_probs": "none"},
    {"k": 20, "log_probs": "certified"},
    {"k": 20, "log_probs": "estimate"},
    {"k": USERS},
    {"k": 50, "refine": 100_000},
    {"k": 20, "refine": 3, "mode": "sample", "seed": [7, 8, 7, (1 << 64) - 1]},
    {"k": 300, "mode": "sample", "seed": 5, "log_probs": "none"},
]


def made(directory: Path, table: str = "leading dimensions", **options: Any) -> Path:
    quant, refine, scan_dim = TABLES[table]
    chosen = TableOptions(quant, SHARD_BYTES, refine=refine, **{"cluster": "no", **options})
    writer = TableWriter(directory, chosen, dim=DIM, scan_dim=scan_dim, bias=True)
    write_table(writer, [(ROWS, IDS, BIAS)])
    return directory


def sharded(fleet: LocalFleet, **options: Any) -> UserTable:
    engine = ShardedEngine(fleet.directory, fleet, ShardedOptions(**options))
    return UserTable(engine, Source(fleet.directory, None, 1, {}))


def assert_same(found: TopK, expected: TopK) -> None:
    for name in ("user_ids", "scores", "coverage", "complete", "exact", "log_probs_exact", "log_probs_certified"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-6)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-4)
    assert found.generation == expected.generation


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("engine", ["native", "numpy"])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_answer_as_the_whole_table(tmp_path: Path, table: str, engine: str, parts: int) -> None:
    place = made(tmp_path / "t", table)
    whole = UserTable.open(place, engine=engine, threads=1)
    fleet = LocalFleet(place, parts, engine)
    found = sharded(fleet)
    assert found.refinement == whole.refinement
    assert all(host_rows for host_rows in found._engine._opened.rows)  # type: ignore[attr-defined]
    deny = whole.filter(deny=whole.topk(Z, 30).user_ids.ravel())
    few = whole.filter(allow=IDS[::300])  # fewer than k, so that places are empty
    for asked in ASKED:
        for chosen in (None, deny, few):
            assert_same(found.topk(Z, filter=chosen, **asked), whole.topk(Z, filter=chosen, **asked))


@pytest.mark.parametrize("mode", ["topk", "sample"])
@pytest.mark.parametrize("exponent", [1, 4])
def test_parts_of_a_table_whose_link_is_a_power(tmp_path: Path, mode: Any, exponent: int) -> None:
    place = made(tmp_path / "t", cluster="yes")
    set_link(place, exponent)
    whole, table = UserTable.open(place, threads=1), sharded(LocalFleet(place, 4))
    few = whole.filter(allow=IDS[::300])
    for chosen in (None, few):
        for refine in (0, 1, 4):
            found, expected = (t.topk(Z, 20, mode=mode, seed=3, refine=refine, filter=chosen) for t in (table, whole))
            assert_same(found, expected)


def test_estimates_of_parts_hold_the_truth(tmp_path: Path) -> None:
    generator = np.random.default_rng(9)
    rows = generator.standard_normal((40_000, 16)).astype(np.float32)
    UserTable.create(tmp_path / "t", rows, quant="int2", refine="int8", cluster="no", shard_bytes=1 << 17)
    whole, table = UserTable.open(tmp_path / "t", threads=1), sharded(LocalFleet(tmp_path / "t", 2))
    z = generator.standard_normal((30, 16)).astype(np.float32)
    estimated, exact = (t.topk(z, 20, log_probs=p) for t, p in ((table, "estimate"), (whole, "exact")))
    np.testing.assert_array_equal(estimated.user_ids, exact.user_ids)
    np.testing.assert_array_equal(estimated.scores, exact.scores)
    assert not estimated.log_probs_certified.any()
    assert np.isfinite(estimated.log_prob_error).all()
    off = np.abs(estimated.logsumexp - exact.logsumexp)
    assert (off <= estimated.log_prob_error).mean() >= 0.8  # each holds with a probability of 95%


def test_deleted_and_appended_users(tmp_path: Path) -> None:
    place = made(tmp_path / "t", "whole rows")
    writer = LivingTable(place, shard_bytes=SHARD_BYTES)
    writer.delete(IDS[:900])  # all rows of the first parts
    writer.append([(ROWS[:90] + 1, np.arange(90), BIAS[:90])])
    whole, table = UserTable.open(place, threads=1), sharded(LocalFleet(place, 8))
    for asked in ({"k": 20}, {"k": 20, "mode": "sample", "seed": 4}):
        assert_same(table.topk(Z, **asked), whole.topk(Z, **asked))
    assert table.generation == 3


def log_sum_of(scores: np.ndarray) -> float:
    return float(np.log(np.exp(scores.astype(np.float64)).sum()))


def test_a_lost_part_is_told_and_the_candidates_are_those_of_the_others(tmp_path: Path) -> None:
    place = made(tmp_path / "t")
    whole = UserTable.open(place, threads=1)
    answer = sharded(LocalFleet(place, 4, fails=lambda part, number: part == 2), retries=0).topk(Z, 30, refine=3)
    for told in (answer.complete, answer.exact, answer.log_probs_exact, answer.log_probs_certified):
        assert not told.any()
    assert np.isnan(answer.log_prob_error).all()
    lost = np.concatenate([ids for ids, _ in UserTable.open(place, part=(2, 4)).decoded()])
    np.testing.assert_allclose(answer.coverage, 1 - len(lost) / USERS)
    others = whole.filter(deny=lost)
    expected = whole.topk(Z, 30, refine=3, filter=others)
    np.testing.assert_array_equal(answer.user_ids, expected.user_ids)
    np.testing.assert_array_equal(answer.scores, expected.scores)
    scanned = whole.topk(Z, USERS - len(lost), refine=0, filter=others)
    again = whole.topk(Z, 90, refine=1, filter=others)
    for item in range(len(Z)):  # 90 candidates count by their refined scores
        parts = np.concatenate([again.scores[item], scanned.scores[item, 90:]])
        assert answer.logsumexp[item] == pytest.approx(log_sum_of(parts), rel=1e-5)


def test_a_budget_leaves_rows_out(tmp_path: Path) -> None:
    place = made(tmp_path / "t")
    answer = sharded(LocalFleet(place, 4, "numpy")).topk(Z, 30, budget_ms=1e-3)
    assert not answer.complete.any()
    assert ((answer.coverage > 0) & (answer.coverage < 1)).all()
    assert (np.diff(answer.scores, axis=1) <= 0).all()
    assert all(len(set(users)) == 30 for users in answer.user_ids.tolist())
    assert np.isnan(answer.log_prob_error).all()


@pytest.mark.parametrize("engine", ["native", "numpy"])
def test_a_refined_score_that_is_not_finite_is_an_error(tmp_path: Path, engine: str) -> None:
    rows = np.ones((400, 16), np.float32)
    rows[:, 8:] = 3e4
    writer = TableWriter(
        tmp_path / "t", TableOptions("int2", refine="fp16", cluster="no"), dim=16, scan_dim=8, bias=False
    )
    write_table(writer, [(rows, None, None)])
    z = np.ones((1, 16), np.float32)
    z[:, 8:] = 3e38
    for table in (UserTable.open(tmp_path / "t", engine=engine), sharded(LocalFleet(tmp_path / "t", 1, engine))):
        with pytest.raises(BundleError, match="finite"):
            table.topk(z, 5)


def test_an_answer_without_refined_scores_loses_the_part(tmp_path: Path) -> None:
    place = made(tmp_path / "t")
    fleet = LocalFleet(place, 4)
    host = fleet.hosts[1].answer
    fleet.hosts[1].answer = lambda asked: replace(host(asked), refined_scores=None)  # type: ignore[method-assign,type-var]
    answer = sharded(fleet, retries=0).topk(Z, 30)
    assert not answer.complete.any()
    assert ((answer.coverage > 0) & (answer.coverage < 1)).all()


def test_a_table_that_has_lost_its_refinement_rows_is_told_as_on_one_machine(tmp_path: Path) -> None:
    place = made(tmp_path / "t")
    table = sharded(LocalFleet(place, 2))
    request = table.request(len(Z), 5, None, "topk", 0, 0.0)
    assert request.refine == 4
    UserTable.create(tmp_path / "plain", ROWS, IDS)
    with pytest.raises(UsageError, match="refine is 4, and the table has no refinement rows"):
        sharded(LocalFleet(tmp_path / "plain", 2)).answer(Z, request)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Scanned and refined scores with ties everywhere, ids, who is allowed, and the rows of each part."""
    rows = draw(st.integers(1, 30))
    integers = st.lists(st.integers(-3, 3), min_size=2 * rows, max_size=2 * rows)
    scanned, refined = (np.array(draw(integers), np.float32).reshape(2, rows) for _ in range(2))
    ids = np.array(draw(st.permutations(range(0, 3 * rows, 3))), np.int64)
    allowed = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    return (
        scanned,
        refined,
        ids,
        allowed,
        np.split(np.arange(rows), sorted(draw(st.lists(st.integers(0, rows), max_size=4)))),
    )


def scan(scanned: np.ndarray, refined: np.ndarray, ids: np.ndarray, allowed: np.ndarray, k: int, link: Link) -> Answer:
    """Answer as libfllm does: k columns, of which those without a user have -1 and minus infinity."""
    items, rows = scanned.shape
    k = min(k, rows)
    order = [sorted(np.flatnonzero(allowed), key=lambda at: (-row[at], ids[at]))[:k] for row in scanned]
    chosen = np.array(order, np.int64).reshape(items, -1)
    empty = ((0, 0), (0, k - chosen.shape[1]))
    scores, again = (
        np.pad(np.take_along_axis(array, chosen, 1), empty, constant_values=-np.inf) for array in (scanned, refined)
    )
    full = np.ones(items, np.bool_)
    return Answer(
        ids=np.pad(ids[chosen], empty, constant_values=-1),
        keys=scores,
        scores=scores,
        logsumexp=np.log(np.exp(link.logits(scanned)).sum(1)),
        rows_scored=np.full(items, rows),
        complete=full,
        exact=full,
        log_probs_exact=full,
        log_prob_error=np.full(items, 1e-5, np.float32),
        log_probs_certified=full,
        rows=rows,
        generation=1,
        scan_ms=0.0,
        merge_ms=0.0,
        refined_scores=again,
    )


@settings(max_examples=200)
@given(cuts(), st.integers(1, 12), st.integers(1, 4), st.integers(0, 4))
def test_any_cut_is_ranked_again_like_the_whole(table: tuple, k: int, refine: int, exponent: int) -> None:
    scanned, refined, ids, allowed, parts = table
    link, rows = Link(exponent), len(ids)
    request = Request(min(k, rows), "topk", (0, 0), None, refine=refine)
    asked = candidates(request, rows)
    answers = [
        scan(scanned[:, part], refined[:, part], ids[part], allowed[part], asked.k, link)
        if len(part)
        else nothing(2, 0, 1)
        for part in parts
    ]
    found = ranked_again(merge(answers, asked.k, rows), request, link)
    best = [sorted(np.flatnonzero(allowed), key=lambda at: (-row[at], ids[at]))[: asked.k] for row in scanned]
    for item, users in enumerate(best):
        again = sorted(users, key=lambda at: (-refined[item, at], ids[at]))[: request.k]
        np.testing.assert_array_equal(found.ids[item, : len(again)], ids[again])
        np.testing.assert_array_equal(found.scores[item, : len(again)], refined[item, again])
        assert (found.ids[item, len(again) :] == -1).all()
        counted = scanned[item].copy()
        counted[users] = refined[item, users]
        assert found.logsumexp[item] == pytest.approx(np.log(np.exp(link.logits(counted)).sum()), rel=1e-12, abs=1e-12)
    assert found.refined_scores is None
    assert not found.log_probs_exact.any()
