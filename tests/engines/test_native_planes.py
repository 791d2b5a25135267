"""Rows in bit planes on the engine `native`: answers are the NumPy engine's, bit for bit, on every instruction set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable, _core
from fllm_export.table.codec_names import UNSKETCHED

GENERATOR = np.random.default_rng(0)
QUANTS = sorted(UNSKETCHED)
DIMS = (1, 15, 16, 17, 100, 128, 256, 1000)
USERS = 2213  # no multiple of a block's 16 rows


def table_of(directory: Path, quant: str, dim: int, **options: object) -> tuple[UserTable, UserTable]:
    """Return a table of several shards of the rows of a user each, opened by both engines."""
    rows = GENERATOR.standard_normal((USERS, dim)) * GENERATOR.lognormal(size=(USERS, 1))
    ids = GENERATOR.choice(1 << 40, USERS, replace=False)
    options = {"quant": quant, "shard_bytes": 700 * (dim // 2 + 30), **options}
    UserTable.create(directory, rows.astype(np.float32), ids, **options)
    return UserTable.open(directory, threads=2), UserTable.open(directory, engine="numpy")


def assert_same(native: UserTable, reference: UserTable, z: np.ndarray, k: int, **asked: object) -> None:
    found, expected = native.topk(z, k, **asked), reference.topk(z, k, **asked)
    np.testing.assert_array_equal(found.user_ids, expected.user_ids)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
    np.testing.assert_array_equal(found.complete, expected.complete)
    assert found.exact.all()


@pytest.mark.parametrize("isa", _core.cpu_levels())
@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("dim", DIMS)
def test_answers_are_the_reference_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: str, quant: str, dim: int
) -> None:
    monkeypatch.setenv("FLLM_ISA", isa)
    clustered = dim % 2 == 0
    bias = GENERATOR.standard_normal(USERS).astype(np.float32) if dim % 3 else None
    native, reference = table_of(tmp_path / "t", quant, dim, bias=bias, cluster="yes" if clustered else "no")
    for batch in (1, 3, 20, 70):
        z = GENERATOR.standard_normal((batch, dim)).astype(np.float32)
        assert_same(native, reference, z, 100)
        fast = native.topk(z, 100, log_probs="none")
        np.testing.assert_array_equal(fast.user_ids, reference.topk(z, 100).user_ids)
    assert_same(native, reference, z[:2], USERS)
    assert_same(native, reference, z[:3], 50, mode="sample", seed=[4, 5, 4])
    allowed = native.filter(allow=native.topk(z[:1], USERS).user_ids[0, ::3])
    kept = reference.filter(allow=native.topk(z[:1], USERS).user_ids[0, ::3])
    for part in (z[:1], z):
        found, expected = native.topk(part, 60, filter=allowed), reference.topk(part, 60, filter=kept)
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("quant", QUANTS)
def test_ties_go_to_the_smaller_id(tmp_path: Path, quant: str) -> None:
    rows = np.repeat(GENERATOR.integers(-1, 2, (40, 20)), 50, 0).astype(np.float32)
    UserTable.create(tmp_path / "t", rows, quant=quant, shard_bytes=1 << 13)
    native, reference = UserTable.open(tmp_path / "t"), UserTable.open(tmp_path / "t", engine="numpy")
    z = GENERATOR.standard_normal((30, 20)).astype(np.float32)
    for part in (z[:1], z):
        for k in (1, 77, 2000):
            assert_same(native, reference, part, k)


@pytest.mark.parametrize("quant", QUANTS)
def test_a_budget_cuts_a_search_off_and_says_so(tmp_path: Path, quant: str) -> None:
    rows = GENERATOR.standard_normal((200_000, 64)).astype(np.float32)
    table = UserTable.create(tmp_path / "t", rows, quant=quant, shard_bytes=1 << 20)
    z = GENERATOR.standard_normal((1, 64)).astype(np.float32)
    cut = table.topk(z, 10, budget_ms=1e-6)
    assert 0 < cut.coverage[0] < 1
    assert not cut.complete.any()
    scores = dict(zip(*(part[0].tolist() for part in _ranked(table, z)), strict=True))
    assert [scores[user] for user in cut.user_ids[0].tolist()] == cut.scores[0].tolist()


def _ranked(table: UserTable, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    answer = table.topk(z, len(table))
    return answer.user_ids, answer.scores


@pytest.mark.parametrize("quant", QUANTS)
def test_a_row_of_zeros_has_its_bias_for_a_score(tmp_path: Path, quant: str) -> None:
    rows, bias = np.zeros((40, 30), np.float32), np.arange(40, dtype=np.float32)
    rows[7] = 1
    table = UserTable.create(tmp_path / "t", rows, bias=bias, quant=quant)
    found = table.topk(-np.ones((1, 30), np.float32), 40)
    assert found.user_ids[0].tolist() == [*range(39, 7, -1), *range(6, -1, -1), 7]
    assert found.scores[0, :-1].tolist() == [float(user) for user in found.user_ids[0, :-1]]
