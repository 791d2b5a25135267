"""Files of vectors that lie about themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export.checkpoint.vector_files import open_vectors
from fllm_export.errors import BundleError, FllmError, UsageError

ROWS = np.ones((4, 3), np.float32)


def npy(header: str) -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", b""),
        ("a.npy", b"not an array at all"),
        ("a.npy", npy("{'descr': __import__('os')")),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3)}\n")),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -3)}\n")),
        ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3)}\n")),
        ("a.npy", npy("-" * 5000 + "1\n")),
        ("a.npy", npy("{'descr': 'O', 'fortran_order': False, 'shape': (1, 1)}\n") + b"cos\nsystem\n(S'true'\ntR."),
        ("a.fbin", b""),
        ("a.fbin", b"\x04\x00\x00"),
        ("a.fbin", np.array([0, 3], "<u4").tobytes()),
        ("a.fbin", np.array([4, 3], "<u4").tobytes() + ROWS.tobytes()[:-1]),
        ("a.fbin", np.array([4, 3], "<u4").tobytes() + ROWS.tobytes() + b"x"),
        ("a.fbin", np.array([2**32 - 1, 2**32 - 1], "<u4").tobytes()),
        ("a.parquet", b"PAR1"),
        ("a.parquet", b"PAR1" + bytes(64) + b"PAR1"),
        ("a.safetensors", b"\xff" * 64),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{}"),
    ],
)
def test_a_lying_file_is_an_error_of_the_project(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        open_vectors([tmp_path / name])
    assert name in str(caught.value)


def test_arrays_of_another_kind_are_refused(tmp_path: Path) -> None:
    for array in (ROWS.astype(np.int64), ROWS[0], ROWS[None], np.array(["a"]), np.zeros((0, 3), np.float32)):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(BundleError, match=r"a\.npy"):
            open_vectors([tmp_path / "a.npy"])


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(BundleError, match="Python objects"):
        open_vectors([tmp_path / "a.npy"])


@pytest.mark.parametrize("name", ["gone.npy", "folder.npy", "a.pkl", "a"])
def test_paths_that_are_no_files_of_vectors(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UsageError, match=name):
        open_vectors([tmp_path / name])
    with pytest.raises(FllmError, match="at least one"):
        open_vectors([])
