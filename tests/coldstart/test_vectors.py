from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fllm_export.coldstart.vectors import Vectors
from fllm_export.errors import BundleError, UsageError


def drawn(users: int = 5, items: int = 7, dim: int = 3) -> Vectors:
    generator = np.random.default_rng(0)
    return Vectors(
        generator.permutation(100)[:users],
        generator.standard_normal((users, dim)),
        generator.permutation(100)[:items],
        generator.standard_normal((items, dim)),
    )


def test_a_file_holds_the_same_vectors(tmp_path: Path) -> None:
    vectors = drawn()
    vectors.save(tmp_path / "v.safetensors")
    found = Vectors.load(tmp_path / "v.safetensors")
    for name in ("user_ids", "users", "item_ids", "items"):
        assert np.array_equal(getattr(found, name), getattr(vectors, name))
    assert found.users.dtype == np.float32
    assert found.user_ids.dtype == np.int64


def test_ids_lead_to_rows_in_any_order() -> None:
    vectors = drawn()
    wanted = vectors.item_ids[[3, 0, 3, 6]]
    assert vectors.item_places(wanted).tolist() == [3, 0, 3, 6]
    assert vectors.user_places(vectors.user_ids[::-1]).tolist() == [4, 3, 2, 1, 0]
    assert vectors.item_places([]).tolist() == []


def test_an_unknown_id_is_named() -> None:
    vectors = drawn()
    with pytest.raises(UsageError, match="item 1000 is unknown"):
        vectors.item_places([int(vectors.item_ids[0]), 1000])
    with pytest.raises(UsageError, match="user 1000 is unknown"):
        vectors.user_places([1000])
    assert vectors.has_items([int(vectors.item_ids[2]), 1000, 2**62]).tolist() == [True, False, False]


def test_known_items_are_replaced_and_new_ones_added() -> None:
    vectors = drawn()
    rows = np.ones((2, 3), np.float32)
    changed = vectors.with_items([1000, int(vectors.item_ids[2])], rows)
    assert changed.item_ids.tolist() == [*vectors.item_ids.tolist(), 1000]
    assert (changed.items[[2, 7]] == 1).all()
    kept = [0, 1, 3, 4, 5, 6]
    assert np.array_equal(changed.items[kept], vectors.items[kept])
    assert not (vectors.items == 1).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_ids": [1, 1, 2, 3, 4]}, "user_ids holds 1 twice"),
        ({"user_ids": [1, 2]}, "user_ids has the shape"),
        ({"item_ids": [-1, 0, 1, 2, 3, 4, 5]}, "ids from 0"),
        ({"items": np.ones((7, 4))}, "items has the shape"),
        ({"users": np.full((5, 3), np.nan)}, "not finite"),
        ({"users": np.ones(5)}, "users has the shape"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, object], message: str) -> None:
    vectors = drawn()
    values = {name: getattr(vectors, name) for name in ("user_ids", "users", "item_ids", "items")}
    with pytest.raises(UsageError, match=message):
        Vectors(**{**values, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": None}, "no tensor 'items'"),
        ({"items": np.ones((7, 4), np.float32)}, r"expected \[any, 3\]"),
        ({"item_ids": np.ones(7, np.int64)}, "item_ids holds 1 twice"),
        ({"item_ids": np.ones(7, np.float32)}, "dtype F32"),
        ({"users": np.full((5, 3), np.inf, np.float32)}, "NaN or infinite"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    vectors = drawn()
    tensors = {name: getattr(vectors, name) for name in ("user_ids", "users", "item_ids", "items")}
    tensors = {name: value for name, value in {**tensors, **change}.items() if value is not None}
    save_file(tensors, tmp_path / "v.safetensors")
    with pytest.raises(BundleError, match=message):
        Vectors.load(tmp_path / "v.safetensors")
    (tmp_path / "v.safetensors").write_bytes(b"short")
    with pytest.raises(BundleError, match="damaged"):
        Vectors.load(tmp_path / "v.safetensors")


def test_a_file_of_numpy_is_called_by_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((5, 3)))
    np.savez(tmp_path / "v.npz", users=np.ones((5, 3)))
    for name in ("v.npy", "v.npz"):
        with pytest.raises(BundleError, match=r"is a file of NumPy.*Make one by"):
            Vectors.load(tmp_path / name)
