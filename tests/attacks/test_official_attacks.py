"""Hostile and damaged files in the official form: no code of theirs runs, and none is half read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fllm_export.checkpoint.checkpoint import Checkpoint

from .tampering import TEMPLATE, refused

torch = pytest.importorskip("torch")


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def official(base: Path, file: Path, **options: Any) -> Callable[[], object]:
    return lambda: Checkpoint.from_filterllm(base, None, file, template=TEMPLATE, **options)


def good_weights() -> dict[str, Any]:
    return {
        "mapper": {"weight": torch.zeros(32, 32), "bias": torch.zeros(32)},
        "user_embeddings": {"weight": torch.ones(5, 32)},
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_with_code(zipped: bool, tiny_llama_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "custom_weights.pt"
    marker = tmp_path / "ran"
    torch.save({**good_weights(), "mapper": Payload(marker)}, file, _use_new_zipfile_serialization=zipped)
    refused(official(tiny_llama_dir, file), file, "was refused", "tensors only", "none of its code was run")
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists(), "the payload is harmless, so that the test shows nothing"


def test_plain_pickle_with_code(tiny_llama_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "custom_weights.pt"
    marker = tmp_path / "ran"
    file.write_bytes(pickle.dumps(Payload(marker)))
    refused(official(tiny_llama_dir, file), file, "was refused")
    assert not marker.exists()
    pickle.loads(file.read_bytes())
    assert marker.exists(), "the payload is harmless, so that the test shows nothing"


def test_official_file_is_gone(tiny_llama_dir: Path, tmp_path: Path) -> None:
    refused(official(tiny_llama_dir, tmp_path / "custom_weights.pt"), tmp_path / "custom_weights.pt", "does not exist")


@pytest.mark.parametrize("keep", [0, 10, 400, -1])
def test_official_file_cut_off(keep: int, tiny_llama_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "custom_weights.pt"
    torch.save(good_weights(), file)
    file.write_bytes(file.read_bytes()[:keep])
    refused(official(tiny_llama_dir, file), file)


def test_official_file_with_one_tensor(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "w.pt")
    refused(official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "holds a Tensor", "user_embeddings.weight")


def test_official_file_without_users(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.save({"mapper": good_weights()["mapper"]}, tmp_path / "w.pt")
    refused(
        official(tiny_llama_dir, tmp_path / "w.pt"),
        tmp_path / "w.pt",
        "lacks the tensor 'user_embeddings.weight'",
        "holds mapper.bias, mapper.weight",
    )


def test_official_file_with_foreign_content(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.save({**good_weights(), "epoch": 3}, tmp_path / "w.pt")
    refused(official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "'epoch' is a int", "a tensor")
    torch.save({**good_weights(), "gate": {"weight": torch.ones(2)}}, tmp_path / "w.pt")
    refused(official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "unknown tensor 'gate.weight'")


def test_official_user_table_of_the_wrong_kind(tiny_llama_dir: Path, tmp_path: Path) -> None:
    for table, found in [(torch.ones(5), "[5]"), (torch.ones(5, 32, dtype=torch.int64), "torch.int64")]:
        torch.save({**good_weights(), "user_embeddings": {"weight": table}}, tmp_path / "w.pt")
        refused(
            official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "'user_embeddings.weight'", found, "[users"
        )


def test_official_user_table_of_another_dim(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.save({**good_weights(), "user_embeddings": {"weight": torch.ones(5, 31)}}, tmp_path / "w.pt")
    refused(official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "32 dimensions", "31")


def test_nan_in_the_official_user_table(tiny_llama_dir: Path, tmp_path: Path) -> None:
    weights = good_weights()
    weights["user_embeddings"]["weight"][4, 0] = float("nan")
    torch.save(weights, tmp_path / "w.pt")
    checkpoint = Checkpoint.from_filterllm(tiny_llama_dir, None, tmp_path / "w.pt", template=TEMPLATE)
    refused(lambda: list(checkpoint.users.chunks()), tmp_path / "w.pt", "'user_embeddings.weight'", "row 4")
