from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fllm_export.checkpoint import parquet_rows
from fllm_export.checkpoint.users import UserRows
from fllm_export.checkpoint.vector_files import open_vectors
from fllm_export.errors import BundleError, FllmError, UsageError

Rows = np.ndarray
ROWS = np.random.default_rng(0).standard_normal((300, 12), dtype=np.float32)
IDS = np.random.default_rng(1).permutation(10_000)[:300].astype(np.int64)


def write_npy(path: Path, rows: Rows, ids: Rows | None = None) -> Path:
    np.save(path.with_suffix(".npy"), rows)
    return path.with_suffix(".npy")


def write_fbin(path: Path, rows: Rows, ids: Rows | None = None) -> Path:
    file = path.with_suffix(".fbin")
    file.write_bytes(np.array(rows.shape, "<u4").tobytes() + rows.astype("<f4").tobytes())
    return file


def write_safetensors(path: Path, rows: Rows, ids: Rows | None = None) -> Path:
    save_file({"vectors": rows} | ({} if ids is None else {"ids": ids}), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def write_parquet(path: Path, rows: Rows, ids: Rows | None = None) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"vector": list(rows)} | ({} if ids is None else {"user_id": ids})
    parquet.write_table(pyarrow.table(columns), path.with_suffix(".parquet"), row_group_size=70)
    return path.with_suffix(".parquet")


WRITERS = [write_npy, write_fbin, write_safetensors, write_parquet]
Writer = Callable[..., Path]


def everything(rows: UserRows) -> tuple[Rows, Rows]:
    ids, parts, _ = zip(*rows.labelled_chunks(), strict=True)
    return np.concatenate(ids), np.concatenate(parts)


@pytest.mark.parametrize("write", WRITERS)
def test_each_format_gives_the_rows_bit_for_bit(write: Writer, tmp_path: Path) -> None:
    rows = open_vectors([write(tmp_path / "a", ROWS)])
    ids, found = everything(rows)
    np.testing.assert_array_equal(found, ROWS)
    np.testing.assert_array_equal(ids, np.arange(300))


@pytest.mark.parametrize("write", WRITERS)
def test_files_are_joined_in_order_and_ids_come_from_a_file(write: Writer, tmp_path: Path) -> None:
    paths = [write(tmp_path / "b", ROWS[:100]), write(tmp_path / "a", ROWS[100:])]
    np.save(tmp_path / "ids.npy", IDS.astype(np.uint16))
    ids, found = everything(open_vectors(paths, tmp_path / "ids.npy"))
    np.testing.assert_array_equal(found, ROWS)
    np.testing.assert_array_equal(ids, IDS)


@pytest.mark.parametrize("write", [write_safetensors, write_parquet])
def test_ids_beside_the_vectors_are_taken(write: Writer, tmp_path: Path) -> None:
    paths = [write(tmp_path / "a", ROWS[:100], IDS[:100]), write(tmp_path / "b", ROWS[100:], IDS[100:])]
    np.testing.assert_array_equal(everything(open_vectors(paths))[0], IDS)
    np.save(tmp_path / "ids.npy", IDS)
    with pytest.raises(UsageError, match="expected ids in one place"):
        open_vectors(paths, tmp_path / "ids.npy")
    with pytest.raises(BundleError, match="holds no ids, and other files do"):
        open_vectors([paths[0], write(tmp_path / "c", ROWS)])


def test_ids_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("name,user_id\n" + "".join(f"x,{i}\n" for i in IDS))
    np.testing.assert_array_equal(
        everything(open_vectors([write_npy(tmp_path / "a", ROWS)], tmp_path / "ids.csv"))[0], IDS
    )


def test_parquet_is_read_forward_backward_and_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "_BATCH_ROWS", 32)
    rows = parquet_rows.ParquetRows(write_parquet(tmp_path / "a", ROWS))
    for first, count in [(0, 300), (5, 1), (250, 50), (31, 2), (31, 200)]:
        np.testing.assert_array_equal(rows.read(first, count).reshape(count, 12), ROWS[first : first + count])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_floats_of_other_widths_are_read(dtype: str, tmp_path: Path) -> None:
    rows = np.asfortranarray(ROWS.astype(dtype))
    np.testing.assert_array_equal(everything(open_vectors([write_npy(tmp_path / "a", rows)]))[1], rows.astype("f4"))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_named_by_file_and_row(write: Writer, value: float, tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[217, 3] = value
    path = write(tmp_path / "a", rows)
    with pytest.raises(BundleError, match="row 217") as caught:
        everything(open_vectors([path]))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("write", WRITERS)
def test_files_of_two_dimensions_are_refused(write: Writer, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="dimension 7; expected 12"):
        open_vectors([write(tmp_path / "a", ROWS), write(tmp_path / "b", ROWS[:, :7].copy())])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (IDS.astype(np.float64), "never converted"),
        (IDS.astype(str), "never converted"),
        (IDS[:-1], r"shape \[299\]"),
        (np.append(IDS[:-1], IDS[0]), "in row 0 and again in row 299"),
        (np.append(IDS[:-1], -1), "runs from -1"),
        (np.append(IDS[:-1].astype(np.uint64), np.uint64(1 << 63)), "expected ids from 0 to"),
    ],
)
def test_ids_are_never_converted_and_each_is_there_once(ids: Rows, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", ids)
    with pytest.raises(FllmError, match=message):
        open_vectors([write_npy(tmp_path / "a", ROWS)], tmp_path / "ids.npy")


def test_ragged_and_missing_vectors_of_parquet_are_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    for vectors, message in (
        ([[1.0, 2.0], [3.0]], "1 numbers in row 1; expected 2"),
        ([[1.0, 2.0], None], "no vector in row 1"),
        ([None], "no vector in row 0"),
        ([[]], "0 numbers in row 0"),
        ([[1.0, 2.0], [3.0, None]], "missing number in row 1"),
    ):
        parquet.write_table(pyarrow.table({"v": pyarrow.array(vectors, pyarrow.list_(pyarrow.float32()))}), path)
        with pytest.raises(BundleError, match=message):
            everything(open_vectors([path]))
    for columns in ({"v": [1.0]}, {"v": [[1]]}, {"v": [[1.0]], "w": [[1.0]]}):
        parquet.write_table(pyarrow.table(columns), path)
        with pytest.raises(BundleError, match="expected one column of lists of floats"):
            open_vectors([path])
