"""The rule of a head: rows from sets of items, the same in every order and in every company."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BundleError, UsageError, UserTable
from fllm_export.head_rule import HEAD_TENSORS
from fllm_export.table.head_learner import HeadLearner, load_rule
from fllm_export.table.learner import Learner
from fllm_export.table.learning import Pairs
from fllm_export.table.living import LivingTable
from fllm_export.table.table import Table
from tests.made_heads import made_head

ITEMS, DIM, RANK, ROW, STRANGER = 60, 10, 6, 8, 10**6


def made(seed: int = 0) -> HeadLearner:
    contributions = np.random.default_rng(seed + 100).standard_normal((ITEMS, DIM))
    closed = Learner.of(np.arange(ITEMS)[::-1] * 3, contributions, 0.3, 0.1)
    return HeadLearner.of(closed, made_head(ITEMS, DIM, RANK, ROW, seed))


def interactions(seed: int, users: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, users, count), generator.integers(0, ITEMS, count).astype(np.int32)


def test_a_row_is_the_closed_form_and_the_fold_in_on_their_maps() -> None:
    learner = made()
    pairs = Pairs.of(*interactions(1, 20, 150))
    closed = learner.closed.exact_rows(pairs.starts, pairs.items)
    fold, pulls, prior, bias = learner.problem_of(pairs.starts, pairs.items)
    np.testing.assert_array_equal(prior, closed[:, :RANK])
    np.testing.assert_allclose(bias, 0.1 * np.log(np.diff(pairs.starts)) / learner.head.scale, rtol=1e-6)
    shares = learner.head.vectors / learner.head.counts[:, None]
    wanted = np.stack([shares[pairs.items[a:b]].sum(0) for a, b in zip(pairs.starts, pairs.starts[1:], strict=False)])
    np.testing.assert_allclose(pulls, wanted, rtol=0, atol=1e-5)
    weights = learner.weights(pairs.starts, pairs.items)
    np.testing.assert_array_equal(weights, fold.rows(pulls, prior, bias))
    assert np.abs(weights - prior).max() > 0.1
    rows = closed @ learner.head.closed_map + weights @ learner.head.head_map
    found = learner.rows(pairs.starts, pairs.items)
    np.testing.assert_allclose(found, rows, rtol=0, atol=1e-5 * np.abs(rows).max())


def table_after(directory: Path, changes: list[tuple[np.ndarray, np.ndarray, bool]]) -> dict[int, bytes]:
    """The stored rows of a table by user, after calls of ``learn``."""
    learner = made()
    UserTable.create(directory, np.ones((1, ROW)), [STRANGER], quant="fp32", sketch="no", bias=np.zeros(1))
    table = LivingTable(directory)
    for users, items, withdraw in changes:
        table.learn(Pairs.of(users, items), learner, withdraw=withdraw)
    chunks = Table(directory).labelled_chunks()
    return {
        user: row.tobytes() + bias.tobytes()
        for ids, rows, biases in chunks
        for user, row, bias in zip(ids.tolist(), rows, biases, strict=True)
    }


def test_rows_depend_on_the_set_of_items_alone(tmp_path: Path) -> None:
    first, second = interactions(2, 30, 120), interactions(3, 40, 150)
    whole = tuple(np.concatenate(columns) for columns in zip(first, second, strict=True))
    wanted = table_after(tmp_path / "once", [(*whole, False)])
    assert len(wanted) == 41
    assert table_after(tmp_path / "ab", [(*first, False), (*second, False)]) == wanted
    assert table_after(tmp_path / "ba", [(*second, False), (*first, False)]) == wanted
    backwards = tuple(column[::-1] for column in whole)
    assert table_after(tmp_path / "backwards", [(*backwards, False)]) == wanted
    one_by_one = [(whole[0][n : n + 45], whole[1][n : n + 45], False) for n in range(0, len(whole[0]), 45)]
    assert table_after(tmp_path / "parts", one_by_one) == wanted


def test_what_is_withdrawn_leaves_no_trace(tmp_path: Path) -> None:
    users, items = interactions(4, 30, 200)
    more = np.repeat(np.arange(30), 2), np.tile(np.array([58, 59], np.int32), 30)
    fresh = items < 58
    kept = users[fresh], items[fresh], False
    wanted = table_after(tmp_path / "never", [kept])
    assert table_after(tmp_path / "withdrawn", [kept, (*more, False), (*more, True)]) == wanted


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    learner = made(5)
    learner.save(tmp_path / "learner.safetensors")
    found = load_rule(tmp_path / "learner.safetensors")
    assert isinstance(found, HeadLearner)
    pairs = Pairs.of(*interactions(6, 20, 100))
    np.testing.assert_array_equal(found.rows(pairs.starts, pairs.items), learner.rows(pairs.starts, pairs.items))
    np.testing.assert_array_equal(found.bias(pairs.starts), learner.bias(pairs.starts))
    assert found.positions(np.array([0, 177])).tolist() == [59, 0]
    with pytest.raises(UsageError, match="item id 4 is not one of the 60 training items"):
        found.positions(np.array([4]))


def test_the_closed_form_alone_does_not_read_it(tmp_path: Path) -> None:
    """A reader that knows no heads must not take contributions in other coordinates for those of rows."""
    made().save(tmp_path / "learner.safetensors")
    with pytest.raises(BundleError, match="is not a learner"):
        Learner.load(tmp_path / "learner.safetensors")


WRONG: dict[str, Any] = {
    "vectors has the shape": {"vectors": np.ones((ITEMS - 1, RANK), np.float32)},
    "vectors have 11 dimensions and the closed form 10": {
        "vectors": np.ones((ITEMS, 11), np.float32),
        "head_map": np.ones((11, ROW), np.float32),
    },
    "head_map has the shape": {"head_map": np.ones((RANK + 1, ROW), np.float32)},
    "closed_map has the shape": {"closed_map": np.ones((DIM, ROW - 1), np.float32)},
    "log_normalisers has a number that is not finite": {"log_normalisers": np.full(ITEMS, np.nan, np.float32)},
    "an item has no users": {"counts": np.zeros(ITEMS, np.int64)},
}


@pytest.mark.parametrize("message", WRONG)
def test_parts_that_do_not_fit_are_refused(message: str, tmp_path: Path) -> None:
    whole = made()
    wrong = replace(whole.head, **WRONG[message])
    with pytest.raises(UsageError, match=message):
        HeadLearner.of(whole.closed, wrong)
    HeadLearner(whole.closed, wrong).save(tmp_path / "l")
    with pytest.raises(BundleError, match=f"is not a learner: {message}"):
        load_rule(tmp_path / "l")


@pytest.mark.parametrize("name", HEAD_TENSORS)
def test_a_missing_or_misnamed_part_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "l"
    made().save(path)
    content = path.read_bytes()
    for old, new in (
        (f'"{name}"', f'"{name[:-1]}q"'),
        ('\\"strength\\": 0.3', '\\"strength\\": 0.0'),
        ("scale", "scala"),
    ):
        path.write_bytes(content.replace(old.encode(), new.encode()))
        assert path.read_bytes() != content
        with pytest.raises(BundleError, match="is not a learner"):
            load_rule(path)


@pytest.mark.parametrize("name", ["closed_map", "head_map"])
def test_rows_beyond_float32_are_refused(name: str) -> None:
    whole, pairs = made(), Pairs.of(*interactions(7, 10, 60))
    huge = replace(whole.head, **{name: np.full_like(getattr(whole.head, name), 3e38)})
    with pytest.raises(BundleError, match="rows that are not finite"):
        HeadLearner.of(whole.closed, huge).rows(pairs.starts, pairs.items)


@pytest.mark.parametrize("factor", [1e15, 1e37])
def test_vectors_beyond_reason_come_to_an_end(factor: float) -> None:
    whole, pairs = made(), Pairs.of(*interactions(8, 10, 60))
    huge = replace(whole.head, vectors=whole.head.vectors * np.float32(factor))
    assert np.isfinite(HeadLearner.of(whole.closed, huge).rows(pairs.starts, pairs.items)).all()
