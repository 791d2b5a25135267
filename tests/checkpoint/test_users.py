from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fllm_export.checkpoint import user_files
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import BundleError, UsageError


def write(folder: Path, parts: list[dict[str, np.ndarray]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, tensors in enumerate(parts, 1):
        save_file(tensors, folder / f"users-{number:05d}-of-{len(parts):05d}.safetensors")


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    chunk=st.integers(1, 30),
    first=st.integers(0, 45),
    count=st.integers(0, 45),
)
def test_files_chunks_and_slices_are_one_table(
    sizes: list[int], chunk: int, first: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / ("users-" + "-".join(map(str, sizes)))
    table = np.arange(sum(sizes) * 3, dtype=np.float32).reshape(-1, 3)
    if not folder.exists():
        cuts = np.cumsum(sizes)[:-1]
        write(folder, [{"user_embeddings": np.ascontiguousarray(part)} for part in np.split(table, cuts)])
    rows = UserRows.open(folder)
    assert (rows.rows, rows.dim) == table.shape
    chunks = list(rows.chunks(chunk))
    assert [len(part) for part in chunks[:-1]] == [chunk] * (len(chunks) - 1)
    np.testing.assert_array_equal(np.concatenate(chunks), table)
    np.testing.assert_array_equal(rows.read(first, count), table[first : first + count])


def test_round_trip_with_ids_and_bias_over_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_files, "_BYTES_PER_FILE", 4 * 4 * 10)
    monkeypatch.setattr(user_files, "_ROWS_AT_ONCE", 3)
    generator = np.random.default_rng(0)
    table = generator.standard_normal((25, 4)).astype(np.float16)
    ids, bias = generator.permutation(1000)[:25], generator.standard_normal(25).astype(np.float32)
    seen: list[tuple[str, int, int]] = []
    UserRows.from_array(table, ids, bias).write(tmp_path, lambda *step: seen.append(step))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"users-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert seen == [("users", 10, 25), ("users", 20, 25), ("users", 25, 25)]
    back = UserRows.open(tmp_path)
    np.testing.assert_array_equal(np.concatenate(list(back.chunks(7))), table.astype(np.float32))
    np.testing.assert_array_equal(back.ids, ids)
    np.testing.assert_array_equal(back.bias, bias)
    assert load_file(tmp_path / "users-00003-of-00003.safetensors")["ids"].tolist() == ids[20:].tolist()


def test_bfloat16_rows(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    values = torch.randn(11, 6).bfloat16()
    save_torch({"user_embeddings": values}, tmp_path / "users-00001-of-00001.safetensors")
    np.testing.assert_array_equal(next(UserRows.open(tmp_path).chunks()), values.float().numpy())


def test_rows_are_read_by_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [{"user_embeddings": np.zeros((1000, 8), np.float32)}])
    asked: list[int] = []
    fromfile = np.fromfile

    def spy(file: Path, dtype: object, count: int, offset: int) -> np.ndarray:
        asked.append(count)
        return fromfile(file, dtype, count, offset=offset)

    monkeypatch.setattr(np, "fromfile", spy)
    rows = UserRows.open(tmp_path)
    assert asked == []
    assert sum(len(chunk) for chunk in rows.chunks(128)) == 1000
    assert max(asked) == 128 * 8


def test_sample_is_even_and_bounded() -> None:
    rows = UserRows.from_array(np.arange(1000, dtype=np.float32)[:, None])
    chosen, values = rows.sample(11)
    assert chosen[0] == 0
    assert chosen[-1] == 999
    assert np.diff(chosen).min() >= 99
    np.testing.assert_array_equal(values[:, 0], chosen)
    assert len(rows.sample(5000)[0]) == 1000


@pytest.mark.parametrize(
    "rows", [np.zeros(3, np.float32), np.zeros((0, 4), np.float32), np.zeros((3, 4), np.int64), np.zeros((2, 0))]
)
def test_arrays_that_are_no_table(rows: np.ndarray) -> None:
    with pytest.raises(UsageError, match="float array"):
        UserRows.from_array(rows)


def test_ids_and_bias_of_the_wrong_length() -> None:
    rows = np.zeros((3, 2), np.float32)
    with pytest.raises(UsageError, match=r"ids has the shape \[2\]; expected integers \[3\]"):
        UserRows.from_array(rows, ids=[1, 2])
    with pytest.raises(UsageError, match=r"bias is an array of float64 with the shape \[4\]; expected numbers \[3\]"):
        UserRows.from_array(rows, bias=[0.0] * 4)
    with pytest.raises(UsageError, match="ids holds 7 twice"):
        UserRows.from_array(rows, ids=[7, 1, 7])


@pytest.mark.parametrize("ids", [[1.9, 2.0, 3.0], ["1", "2", "3"], np.array(["2020-01-01"] * 3, "datetime64[D]")])
def test_ids_are_never_converted(ids: object) -> None:
    with pytest.raises(UsageError, match=r"ids is an array of .*; expected integers"):
        UserRows.from_array(np.zeros((3, 2), np.float32), ids=ids)


def test_nan_in_an_array_names_the_row() -> None:
    table = np.zeros((300, 2), np.float32)
    table[217, 1] = np.inf
    with pytest.raises(BundleError, match="row 217"):
        list(UserRows.from_array(table).chunks(100))
