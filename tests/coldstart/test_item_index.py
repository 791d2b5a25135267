"""The three kinds of index agree with plain inner products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export.coldstart.item_index import INDEX_ENDINGS, ExactIndex, ItemIndex, open_index
from fllm_export.errors import BundleError, FllmError, HardwareError, UsageError

DIM = 16
GENERATOR = np.random.default_rng(0)
IDS = np.arange(10, 510)
ITEMS = GENERATOR.standard_normal((500, DIM)).astype(np.float32)
USERS = GENERATOR.standard_normal((20, DIM)).astype(np.float32)


def opened(path: Path) -> ItemIndex:
    try:
        return open_index(path, IDS, ITEMS)
    except HardwareError as error:
        pytest.skip(str(error))


def expect(index: ItemIndex, ids: np.ndarray, rows: np.ndarray) -> None:
    """Assert that an index holds these items; the graph may miss a few."""
    found, scores = index.search(USERS, 10)
    all_scores = USERS @ rows.T
    expected = ids[np.argsort(-all_scores, axis=1)[:, :10]]
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, expected, strict=True)]
    assert sum(hits) >= 0.95 * expected.size
    place = {item: at for at, item in enumerate(ids.tolist())}
    own = np.array([[all_scores[u, place[i]] for i in row] for u, row in enumerate(found.tolist())])
    np.testing.assert_allclose(scores, own, rtol=1e-4, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    assert len(index) == len(ids)


@pytest.mark.parametrize("ending", INDEX_ENDINGS)
def test_items_are_pushed_replaced_and_kept(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"items{ending}"
    index = opened(path)
    expect(index, IDS, ITEMS)
    # Two new items, a known one, and one that comes twice: its last vector counts.
    ids = np.array([900, 901, 12, 902, 902])
    rows = GENERATOR.standard_normal((5, DIM)).astype(np.float32)
    for _ in range(2):
        index.push(ids, rows)
    merged = ITEMS.copy()
    merged[2] = rows[2]
    expect(index, np.append(IDS, [900, 901, 902]), np.concatenate([merged, rows[[0, 1, 4]]]))
    index.save(path)
    expect(open_index(path, IDS, ITEMS), np.append(IDS, [900, 901, 902]), np.concatenate([merged, rows[[0, 1, 4]]]))


@pytest.mark.parametrize("ending", INDEX_ENDINGS)
@pytest.mark.parametrize("users", [1, 20])
def test_all_items_are_found_after_many_replacements(ending: str, users: int, tmp_path: Path) -> None:
    index, generator = opened(tmp_path / f"items{ending}"), np.random.default_rng(1)
    for _ in range(4):
        index.push(IDS[:300], generator.standard_normal((300, DIM)).astype(np.float32))
    found, scores = index.search(USERS[:users], 1000)
    assert found.shape == scores.shape == (users, len(IDS))
    assert all(np.array_equal(np.sort(row), IDS) for row in found)
    assert np.isfinite(scores).all()
    assert (np.diff(scores, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("ending", INDEX_ENDINGS)
@pytest.mark.parametrize("content", [b"", b"no index", b"\0" * 4096])
def test_a_damaged_file_is_an_error(ending: str, content: bytes, tmp_path: Path) -> None:
    opened(tmp_path / f"other{ending}")
    path = tmp_path / f"items{ending}"
    path.write_bytes(content)
    with pytest.raises(BundleError):
        open_index(path, IDS, ITEMS)


@pytest.mark.parametrize("ending", INDEX_ENDINGS)
def test_another_dimension_is_an_error(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"items{ending}"
    opened(path).save(path)
    with pytest.raises(BundleError, match=f"dimension {DIM}"):
        open_index(path, IDS, np.ones((500, 3), np.float32))
    with pytest.raises(UsageError):
        opened(path).push([1], np.ones((1, 3), np.float32))


def test_an_unknown_ending_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.hnsw"):
        open_index(tmp_path / "items.hnsw", IDS, ITEMS)


def test_equal_scores_rank_by_item_id() -> None:
    index = ExactIndex(np.array([5, 3, 4]), np.ones((3, 2), np.float32))
    assert index.search([[1.0, 1.0]], 3)[0].tolist() == [[3, 4, 5]]


def test_a_file_without_ids_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"items": ITEMS}, tmp_path / "items.safetensors")
    with pytest.raises(FllmError, match="item_ids"):
        open_index(tmp_path / "items.safetensors", IDS, ITEMS)
