"""Answers that refinement rows rank again: what they are, and that both engines give the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fllm_export import UsageError, UserTable
from fllm_export.engines.gumbel import gumbel
from fllm_export.engines.refined import corrected
from fllm_export.table.codecs import CODECS
from fllm_export.table.layout import TableLayout
from fllm_export.table.options import TableOptions
from fllm_export.table.writer import TableWriter, write_table

GENERATOR = np.random.default_rng(0)
USERS, DIM = 6000, 64
SIZES = np.linspace(2, 0.3, DIM, dtype=np.float32)
ROWS = GENERATOR.standard_normal((USERS, DIM)).astype(np.float32) * SIZES
BIAS = GENERATOR.standard_normal(USERS).astype(np.float32) * np.float32(0.1)
IDS = GENERATOR.choice(1 << 40, USERS, replace=False)
Z = GENERATOR.standard_normal((6, DIM)).astype(np.float32) * np.float32(0.2)
TABLES = [
    ("int2", "int8", 64),
    ("int2", "int8", 24),
    ("int1", "int8", 24),
    ("int4row", "fp16", 40),
    ("int8", "int8", 32),
    ("int4", "fp16", 64),
]
ASKED = [
    {},
    {"refine": 1},
    {"refine": 0},
    {"refine": 3, "mode": "sample", "seed": [7, 8, 7, 9, 10, 11]},
    {"log_probs": "none"},
    {"refine": 100_000},
]


def write(directory: Path, quant: str, refine: str, scan_dim: int, **options: object) -> None:
    chosen = TableOptions(quant, 1 << 18, refine=refine, **options)
    writer = TableWriter(directory, chosen, dim=DIM, scan_dim=scan_dim, bias=True)
    write_table(writer, [(ROWS, IDS, BIAS)])


def both(directory: Path) -> tuple[UserTable, UserTable]:
    return UserTable.open(directory, threads=2), UserTable.open(directory, engine="numpy")


def fine_scores(refine: str) -> np.ndarray:
    """Return the scores of all users by rows in the codec of refinement, in float64."""
    codec = CODECS[refine]
    return Z.astype(np.float64) @ codec.rows(codec.encode(ROWS), DIM).T + BIAS


@pytest.mark.parametrize(("quant", "refine", "scan_dim"), TABLES)
@pytest.mark.parametrize("cluster", ["yes", "no"])
def test_both_engines_give_the_same_answers(
    tmp_path: Path, quant: str, refine: str, scan_dim: int, cluster: str
) -> None:
    write(tmp_path / "t", quant, refine, scan_dim, cluster=cluster)
    native, reference = both(tmp_path / "t")
    assert native.dim == reference.dim == DIM
    assert native.refinement == reference.refinement == refine
    for asked in ASKED:
        found, expected = native.topk(Z, 20, **asked), reference.topk(Z, 20, **asked)
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
        for name in ("exact", "complete", "log_probs_exact", "coverage"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert found.exact.all()
        assert not found.log_probs_exact.any() or asked == {"refine": 0}


@pytest.mark.parametrize("refine", ["int8", "fp16"])
def test_all_users_as_candidates_are_ranked_like_rows_of_that_codec(tmp_path: Path, refine: str) -> None:
    write(tmp_path / "t", "int2", refine, DIM)
    UserTable.create(tmp_path / "plain", ROWS, IDS, bias=BIAS, quant=refine)
    expected = UserTable.open(tmp_path / "plain", threads=2).topk(Z, 50)
    for table in both(tmp_path / "t"):
        found = table.topk(Z, 50, refine=USERS)
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-6)


def test_the_answer_is_the_definition(tmp_path: Path) -> None:
    write(tmp_path / "t", "int2", "int8", 24)
    native, _ = both(tmp_path / "t")
    scores = fine_scores("int8")
    candidates = native.topk(Z, 60, refine=0)
    found = native.topk(Z, 20, refine=3)
    place = {int(user): row for row, user in enumerate(IDS)}
    for item in range(len(Z)):
        rows = [place[int(user)] for user in candidates.user_ids[item]]
        best = sorted(rows, key=lambda row: (-scores[item, row], IDS[row]))[:20]
        np.testing.assert_array_equal(found.user_ids[item], IDS[best])
        np.testing.assert_allclose(found.scores[item], scores[item, best], rtol=2e-3, atol=2e-4)


def test_recall_rises_to_that_of_the_refinement_rows(tmp_path: Path) -> None:
    write(tmp_path / "t", "int2", "int8", 32)
    native, _ = both(tmp_path / "t")
    truth = np.argsort(-(Z @ ROWS.T + BIAS), axis=1)[:, :100]
    recalls = []
    for refine in (0, 1, 2, 4, 8, 32):
        found = native.topk(Z, 100, refine=refine).user_ids
        recalls.append(np.mean([len(np.intersect1d(IDS[a], b)) / 100 for a, b in zip(truth, found, strict=True)]))
    assert recalls[0] == recalls[1] < recalls[2] < recalls[3] < recalls[4]
    assert recalls[0] < 0.6
    assert recalls[-1] > 0.95


def test_the_noise_of_a_user_stays_with_the_user(tmp_path: Path) -> None:
    write(tmp_path / "t", "int4row", "int8", DIM)
    native, _ = both(tmp_path / "t")
    drawn = native.topk(Z[:1], USERS // 10, mode="sample", seed=5, refine=10)
    codec = CODECS["int8"]
    UserTable.create(tmp_path / "plain", ROWS, IDS, bias=BIAS, quant=codec.name)
    plain = UserTable.open(tmp_path / "plain").topk(Z[:1], USERS // 10, mode="sample", seed=5)
    np.testing.assert_array_equal(drawn.user_ids, plain.user_ids)
    keys = drawn.scores[0] + gumbel(5, drawn.user_ids[0])
    assert (np.diff(keys.astype(np.float32)) <= 0).all()


def test_the_corrected_denominator_is_nearer_to_the_truth(tmp_path: Path) -> None:
    write(tmp_path / "t", "int2", "int8", 24)
    native, _ = both(tmp_path / "t")
    scores = fine_scores("int8")
    truth = np.log(np.exp(scores).sum(1))
    errors = [np.abs(native.topk(Z, 100, refine=c).logsumexp - truth).mean() for c in (0, 1, 4, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_no_probability_exceeds_one() -> None:
    """A denominator that candidates make up alone is their sum, whatever rounding leaves of the others."""
    searched = np.array([[100.0, 1.0]], np.float32)
    refined = np.array([[103.0, 0.0]], np.float32)
    total = np.log(np.exp(searched.astype(np.float64)).sum(1)) - 1e-9
    assert corrected(total, searched, refined)[0] >= 103.0
    assert corrected(np.array([900.0]), searched * 0 + 1, refined)[0] == pytest.approx(900.0)


def test_filtered_users_are_not_refined(tmp_path: Path) -> None:
    write(tmp_path / "t", "int2", "int8", 24)
    native, reference = both(tmp_path / "t")
    banned = native.topk(Z, 20).user_ids.ravel()
    found = native.topk(Z, 20, filter=native.filter(deny=banned))
    expected = reference.topk(Z, 20, filter=reference.filter(deny=banned))
    assert not np.isin(found.user_ids, banned).any()
    np.testing.assert_array_equal(found.user_ids, expected.user_ids)
    few = native.topk(Z, 20, filter=native.filter(allow=banned[:7]))
    assert (np.sort(few.user_ids, axis=1)[:, :13] == -1).all()


def test_a_budget_cuts_the_scan_alone(tmp_path: Path) -> None:
    rows = np.tile(ROWS, (10, 1))
    UserTable.create(tmp_path / "t", rows, quant="int8", refine="fp16", cluster="no", shard_bytes=1 << 20)
    for table in both(tmp_path / "t"):
        found = table.topk(Z, 20, budget_ms=1e-6)
        assert not found.complete.any()
        assert (found.coverage < 1).all()
        order = np.argsort(-found.scores, axis=1, kind="stable")
        np.testing.assert_array_equal(order, np.broadcast_to(np.arange(20), order.shape))


def test_what_cannot_be_refined_is_refused(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "plain", ROWS, quant="int8")
    with pytest.raises(UsageError, match="refine is 2, and the table has no refinement rows"):
        UserTable.open(tmp_path / "plain").topk(Z, 5, refine=2)
    assert UserTable.open(tmp_path / "plain").topk(Z, 5, refine=0).exact.all()
    write(tmp_path / "t", "int8", "int8", 32)
    for wrong in (-1, 2.5, True, 1 << 21):
        with pytest.raises(UsageError, match="refine is"):
            UserTable.open(tmp_path / "t").topk(Z, 5, refine=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the engine 'cuda' does not read refinement rows"):
        UserTable.open(tmp_path / "t", engine="cuda")
    with pytest.raises(UsageError, match=r"z \(item vectors\) has the shape \[6, 32\]; expected \[n, 64\]"):
        UserTable.open(tmp_path / "t").topk(Z[:, :32], 5)


def test_a_table_of_other_refinement_rows_takes_its_place(tmp_path: Path) -> None:
    write(tmp_path / "t", "int2", "int8", 24)
    table = UserTable.open(tmp_path / "t")
    before = table.topk(Z, 10, refine=2)
    write(tmp_path / "new", "int2", "fp16", 48)
    layout = TableLayout.load(tmp_path / "new")
    replace(layout, generation=2).save(tmp_path / "new")
    (tmp_path / "t").rename(tmp_path / "old")
    (tmp_path / "new").rename(tmp_path / "t")
    table.reopen()
    assert table.refinement == "fp16"
    after = table.topk(Z, 10, refine=2)
    assert (before.generation, after.generation) == (1, 2)
