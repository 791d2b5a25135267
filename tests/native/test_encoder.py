"""The encoder in C++ against the Python runtime's, on the same build of ONNX Runtime."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import Runtime, build
from fllm_export.bundle.bundle import Bundle


@pytest.fixture(scope="module")
def texts(item_texts: list[str]) -> list[str]:
    return [*item_texts, "é" * 300, "one", "漢字 and 👩‍👩‍👧 " * 30, "the last one " * 40]


def test_item_vectors_are_equal(native: Any, onnxruntime_library: str, tiny_bundle: Bundle, texts: list[str]) -> None:
    runtime = Runtime.open(tiny_bundle.path, threads=1)
    wanted = runtime.encode(texts)
    encoder = native.encoder(tiny_bundle.path, onnxruntime_library)
    found = encoder.encode_texts(texts, wanted.shape[1])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)

    ids = native.tokenizer(tiny_bundle.path).encode(texts)
    padded = np.zeros((len(ids), max(map(len, ids))), np.int64)
    for row, item in zip(padded, ids, strict=True):
        row[: len(item)] = item
    lengths = np.array([len(item) for item in ids])
    np.testing.assert_array_equal(encoder.encode(padded, lengths, wanted.shape[1]), found)


def test_features_and_a_kernel_are_part_of_the_graph(
    native: Any, onnxruntime_library: str, kernel_bundle: Bundle, texts: list[str]
) -> None:
    wanted = Runtime.open(kernel_bundle.path, threads=1).encode(texts)
    found = native.encoder(kernel_bundle.path, onnxruntime_library).encode_texts(texts, wanted.shape[1])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def test_unfit_token_ids_are_refused(native: Any, onnxruntime_library: str, tiny_bundle: Bundle) -> None:
    encoder = native.encoder(tiny_bundle.path, onnxruntime_library)
    for ids, length, message in (
        ([[1, 2]], 0, "has 0 tokens"),
        ([[1] * 99], 99, "1 to 64"),
        ([[1 << 30]], 1, "cannot run"),
    ):
        with pytest.raises(native.Error, match=message) as error:
            encoder.encode(np.array(ids), np.array([length]), 16)
        assert error.value.status == 2


def test_a_missing_library_is_named(native: Any, tiny_bundle: Bundle) -> None:
    with pytest.raises(native.Error, match="FLLM_ONNXRUNTIME") as error:
        native.encoder(tiny_bundle.path, "/nowhere/libonnxruntime.so")
    assert error.value.status == 6


def test_no_other_provider_is_chosen(native: Any, onnxruntime_library: str, tiny_bundle: Bundle) -> None:
    with pytest.raises(native.Error, match="no provider 'tpu'; expected 'cpu' or 'cuda'") as error:
        native.encoder(tiny_bundle.path, onnxruntime_library, b"tpu")
    assert error.value.status == 2
    native.encoder(tiny_bundle.path, onnxruntime_library, b"cpu")
    if (Path(onnxruntime_library).parent / "libonnxruntime_providers_cuda.so").exists():
        pytest.skip("this build of ONNX Runtime has a CUDA execution provider")
    with pytest.raises(native.Error, match=r"cannot run the encoder on the GPU \(.+\)") as error:
        native.encoder(tiny_bundle.path, onnxruntime_library, b"cuda")
    assert error.value.status == 6


def test_damaged_bundles_are_refused(
    native: Any, onnxruntime_library: str, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    directory = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.path, directory)
    (directory / "encoder" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(native.Error, match="cannot open") as error:
        native.encoder(directory, onnxruntime_library)
    assert error.value.status == 4
    (directory / "encoder" / "model.onnx").unlink()
    with pytest.raises(native.Error, match="is missing"):
        native.encoder(directory, onnxruntime_library)
    (directory / "manifest.json").write_text('{"format_version": 2}')
    with pytest.raises(native.Error, match="format version 2; expected at most 1"):
        native.encoder(directory, onnxruntime_library)


def test_the_encoder_for_cpus_is_run(
    native: Any, onnxruntime_library: str, tiny_checkpoint: Any, item_texts: list[str], tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint("bert", mapper="kernel", users=400)
    options = {"calibration": item_texts, "min_recall": 0.1, "k": 20}
    bundle = build(checkpoint, tmp_path / "bundle", encoder_precision="int8", **options)
    served, plain = (
        Runtime.open(bundle.path, threads=1, encoder=name).encode(item_texts) for name in ("cpu", "cpu-fp32")
    )
    found = native.encoder(bundle.path, onnxruntime_library).encode_texts(item_texts, served.shape[1])
    np.testing.assert_allclose(found, served, rtol=0, atol=1e-6 * np.abs(served).max())
    assert np.abs(found - plain).max() > 1e-4 * np.abs(plain).max()
