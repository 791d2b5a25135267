from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fllm_export.coldstart.pseudo_pairs import PseudoPairs
from fllm_export.errors import BundleError, UsageError


def test_pairs_are_listed_item_by_item() -> None:
    pairs = PseudoPairs([7, 3], [[1, 2], [2, 9]], [[0.5, 0.25], [0.125, 0.0]])
    items, users, weights = pairs.flat()
    assert items.tolist() == [7, 7, 3, 3]
    assert users.tolist() == [1, 2, 2, 9]
    assert weights.tolist() == [0.5, 0.25, 0.125, 0.0]
    assert (len(pairs), pairs.k) == (4, 2)
    assert pairs.first(1).user_ids.tolist() == [[1], [2]]
    with pytest.raises(UsageError, match="k is 3"):
        pairs.first(3)


def test_logarithms_of_an_answer_become_probabilities() -> None:
    pairs = PseudoPairs.of_answer([4], [[1, 2]], np.array([[1e-7, np.log(0.25)]], np.float32))
    assert np.allclose(pairs.probabilities, [[1.0, 0.25]])
    assert pairs.probabilities.dtype == np.float32


@pytest.mark.parametrize(
    ("items", "users", "weights", "message"),
    [
        ([1, 1], [[1], [2]], [[0.1], [0.1]], "item_ids holds 1 twice"),
        ([1], [1, 2], [0.1, 0.1], "user_ids has the shape"),
        ([1], [[1, 2]], [[0.1]], "probabilities has the shape"),
        ([1], [[1, 2]], [[0.1, 1.5]], "outside 0 to 1"),
        ([1], [[1, 2]], [[0.1, float("nan")]], "outside 0 to 1"),
        ([1], [[1, -2]], [[0.1, 0.1]], "ids from 0"),
    ],
)
def test_what_does_not_go_together_is_refused(items: object, users: object, weights: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PseudoPairs(items, users, weights)  # type: ignore[arg-type]


def test_a_file_gives_back_the_pairs(tmp_path: Path) -> None:
    pairs = PseudoPairs([7, 3], [[1, 2], [2, 9]], [[0.5, 0.25], [0.125, 0.0]])
    pairs.save(tmp_path / "pairs.safetensors")
    found = PseudoPairs.load(tmp_path / "pairs.safetensors")
    for name in ("item_ids", "user_ids", "probabilities"):
        assert np.array_equal(getattr(found, name), getattr(pairs, name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_ids": None}, "no tensor 'user_ids'"),
        ({"item_ids": np.array([3, 3])}, "item_ids holds 3 twice"),
        ({"probabilities": np.array([[0.5], [np.nan]], np.float32)}, "probabilit"),
        ({"user_ids": np.array([1, 2])}, "user_ids"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    whole = {"item_ids": np.array([7, 3]), "user_ids": np.array([[1], [2]]), "probabilities": np.ones((2, 1), "f4")}
    tensors = {name: value for name, value in {**whole, **changes}.items() if value is not None}
    save_file(tensors, tmp_path / "pairs.safetensors")
    with pytest.raises(BundleError, match=message):
        PseudoPairs.load(tmp_path / "pairs.safetensors")
