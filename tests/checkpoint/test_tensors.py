from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fllm_export.checkpoint.tensors import open_tensors
from fllm_export.errors import BundleError


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_floats_become_float32(dtype: type, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    save_file({"a": np.ones(3, np.float32), "x": values}, tmp_path / "f.safetensors")
    tensor = open_tensors(tmp_path / "f.safetensors")["x"]
    assert tensor.read().dtype == np.float32
    np.testing.assert_array_equal(tensor.read(), values.astype(np.float32))
    np.testing.assert_array_equal(tensor.read(2, 3), values[2:5].astype(np.float32))


def test_bfloat16_equals_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    values = torch.randn(33, 9, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    save_torch({"x": values}, tmp_path / "f.safetensors")
    tensor = open_tensors(tmp_path / "f.safetensors")["x"]
    np.testing.assert_array_equal(tensor.read(), values.float().numpy())
    np.testing.assert_array_equal(tensor.read(30, 2), values.float().numpy()[30:32])


@given(first=st.integers(0, 20), count=st.integers(0, 20))
def test_any_slice_is_the_slice(first: int, count: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    path = tmp_path_factory.getbasetemp() / "slices.safetensors"
    if not path.exists():
        save_file({"pad": np.ones(5, np.float16), "x": values}, path)
    count = min(count, 20 - first)
    np.testing.assert_array_equal(open_tensors(path)["x"].read(first, count), values[first : first + count])


def test_ids(tmp_path: Path) -> None:
    ids = np.array([5, 2**40, 0], np.int64)
    save_file({"ids": ids}, tmp_path / "f.safetensors")
    tensor = open_tensors(tmp_path / "f.safetensors")["ids"]
    tensor.expect((3,), ids=True)
    np.testing.assert_array_equal(tensor.read_ids(), ids)


@pytest.mark.parametrize("dtype", [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)])
def test_ids_of_every_integer_type(dtype: str, tmp_path: Path) -> None:
    save_file({"ids": np.array([5, 100, 0], dtype)}, tmp_path / "f.safetensors")
    tensor = open_tensors(tmp_path / "f.safetensors")["ids"]
    tensor.expect((3,), ids=True)
    assert tensor.read_ids().dtype == np.int64
    assert tensor.read_ids().tolist() == [5, 100, 0]


@pytest.mark.parametrize(("dtype", "name"), [(np.float64, "F64"), (np.float32, "F32"), (np.bool_, "BOOL")])
def test_ids_are_never_converted(dtype: type, name: str, tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    save_file({"ids": np.array([1.9, 2.0, 3.0]).astype(dtype)}, file)
    with pytest.raises(BundleError, match=rf"'ids' of {file} has the dtype {name}; expected I64 or .*U8"):
        open_tensors(file)["ids"].expect((3,), ids=True)


def test_ids_above_int64(tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    save_file({"ids": np.array([1, 2**63, 3], np.uint64)}, file)
    with pytest.raises(BundleError, match=f"'ids' of {file} has {2**63} in row 1; expected ids of at most {2**63 - 1}"):
        open_tensors(file)["ids"].read_ids()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ((4, 3), "[4, 3]"),
        ((20,), "[20]"),
        ((None, 4), "[any, 4]"),
    ],
)
def test_expect_names_shapes(wanted: tuple[int | None, ...], words: str, tmp_path: Path) -> None:
    save_file({"x": np.zeros((20, 3), np.float32)}, tmp_path / "f.safetensors")
    tensor = open_tensors(tmp_path / "f.safetensors")["x"]
    tensor.expect((None, 3))
    with pytest.raises(BundleError) as caught:
        tensor.expect(wanted)
    for word in ["'x'", "f.safetensors", "[20, 3]", words]:
        assert word in str(caught.value)


def test_file_that_shrinks_while_open(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_file({"x": np.zeros((20, 3), np.float32)}, path)
    tensor = open_tensors(path)["x"]
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 8)
    with pytest.raises(BundleError, match="ends after 58 of the 60 numbers"):
        tensor.read()
