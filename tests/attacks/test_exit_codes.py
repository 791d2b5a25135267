"""Every hostile or damaged input ends a command with its own message and exit code, and writes nothing."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from fllm_export import Bundle, BundleError, Checkpoint
from fllm_export.cli.main import main

Change = Callable[[Path], None]


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def user_file(checkpoint: Path) -> Path:
    return next(checkpoint.glob("users-*.safetensors"))


def missing_tensor(path: Path) -> None:
    edit_tensors(user_file(path), lambda t: t.update(others=t.pop("user_embeddings")))


def wrong_shape(path: Path) -> None:
    edit_tensors(user_file(path), lambda t: t.update(user_embeddings=t["user_embeddings"][:, :5].copy()))


def nan_rows(path: Path) -> None:
    def poison(tensors: dict[str, np.ndarray]) -> None:
        tensors["user_embeddings"][7, 3] = np.nan

    edit_tensors(user_file(path), poison)


def nan_weights(path: Path) -> None:
    def poison(tensors: dict[str, np.ndarray]) -> None:
        tensors["embeddings.word_embeddings.weight"][9, 0] = np.nan

    edit_tensors(path / "base" / "model.safetensors", poison)


def quantised(path: Path) -> None:
    edit_json(path / "base" / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def truncated(path: Path) -> None:
    user_file(path).write_bytes(user_file(path).read_bytes()[:-9])


CHECKPOINTS: dict[str, tuple[Change, str]] = {
    "missing tensor": (missing_tensor, "user_embeddings"),
    "wrong shape": (wrong_shape, "5"),
    "NaN rows": (nan_rows, "row 7"),
    "truncated file": (truncated, "users-"),
    "newer schema": (lambda p: edit_json(p / "filterllm.json", schema_version=9), "schema_version is 9"),
    "no mapper": (lambda p: (p / "head.safetensors").unlink(), "head.safetensors"),
    "no base weights": (lambda p: (p / "base" / "model.safetensors").unlink(), "base"),
    "NaN in the base model": (nan_weights, "NaN or infinite number in row 9"),
    "quantised base model": (quantised, "the weights of the base model are quantised"),
    "encoder-decoder": (lambda p: edit_json(p / "base" / "config.json", model_type="t5"), "is an encoder-decoder"),
    "too few positions": (lambda p: edit_json(p / "filterllm.json", max_length=600), "positions for 512 tokens"),
    "not JSON": (lambda p: (p / "filterllm.json").write_text("{"), "filterllm.json"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_damaged_checkpoint_is_exit_4(
    name: str, tiny_checkpoint: Callable[..., Checkpoint], tmp_path: Path, item_texts: list[str]
) -> None:
    change, message = CHECKPOINTS[name]
    tiny_checkpoint("bert", users=400).save(tmp_path / "checkpoint")
    change(tmp_path / "checkpoint")
    (tmp_path / "items.txt").write_text("\n".join(item_texts))
    arguments = ["build", tmp_path / "checkpoint", "--out", tmp_path / "b", "--calibration", tmp_path / "items.txt"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 4, result.output
    assert message in result.stderr
    assert not (tmp_path / "b").exists()


def cut_shard(path: Path) -> None:
    shard = path / "users" / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])


def flip_a_code(path: Path) -> None:
    shard = path / "users" / "00000.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[5000] ^= 1
    shard.write_bytes(raw)


def nan_scale(path: Path) -> None:
    shard = path / "users" / "00000.safetensors"
    raw = bytearray(shard.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    offset = 8 + length + json.loads(raw[8 : 8 + length])["scales"]["data_offsets"][0]
    raw[offset : offset + 4] = np.float32(np.nan).tobytes()
    shard.write_bytes(raw)


BUNDLES: dict[str, tuple[Change, str]] = {
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "holds no manifest.json"),
    "newer format": (lambda p: edit_json(p / "manifest.json", format_version=7), "has format version 7"),
    "truncated shard": (cut_shard, "00000.safetensors"),
    "wrong hash": (flip_a_code, "has SHA-256"),
    "NaN scale": (nan_scale, "has SHA-256"),
    "missing encoder": (lambda p: (p / "encoder" / "model.onnx").unlink(), "encoder/model.onnx is missing"),
    "file outside": (
        lambda p: edit_json(p / "manifest.json", files={"../x": {"bytes": 1, "sha256": "0"}}),
        "names '../x'; expected names of files inside its directory",
    ),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_a_damaged_bundle_is_exit_4(name: str, tiny_bundle: Bundle, tmp_path: Path) -> None:
    change, message = BUNDLES[name]
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    change(tmp_path / "bundle")
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "bundle")])
    assert result.exit_code == 4, result.output
    assert message in result.stderr


@pytest.mark.parametrize("name", ["encoder/model.onnx", "head/tile.onnx", "tokenizer.json"])
def test_a_damaged_graph_or_tokenizer_is_exit_4(name: str, tiny_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    path.write_bytes(path.read_bytes()[:100])
    command = ["query", str(tmp_path / "bundle"), "a film", "--engine", "onnxruntime"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 4, result.output
    assert name in result.stderr


class Bomb:
    """Unpickled without care, this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tiny_llama_dir: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "custom_weights.pt"
    bomb.write_bytes(pickle.dumps({"user_embeddings.weight": Bomb(tmp_path / "exploded")}))
    with pytest.raises(BundleError, match=r"custom_weights\.pt"):
        Checkpoint.from_filterllm(tiny_llama_dir, None, bomb, template="{text}")
    assert not (tmp_path / "exploded").exists()
