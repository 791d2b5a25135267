"""Hostile JSON, in every file that holds any: exit code 4, and a message that names the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import Bundle, BundleError, Checkpoint, UserTable
from fllm_export.bundle.ledger import Ledger
from fllm_export.cli.main import main

DEEP = b'{"a":' * 100_000


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


def deep_header(shard: Path) -> None:
    """Give a safetensors file a header that is nested deeply."""
    padding = b" " * (-len(DEEP) % 8)
    shard.write_bytes((len(DEEP) + len(padding)).to_bytes(8, "little") + DEEP + padding + bytes(64))


IN_BUNDLE: dict[str, tuple[str, ...]] = {
    "manifest.json": ("query", "verify", "inspect"),
    "users/table.json": ("query", "inspect"),
    "users/00000.safetensors": ("query", "inspect"),
    "reports/parity.json": ("inspect",),
    "encoder/plans/plans.json": ("inspect",),
    "head/plans/plans.json": ("inspect",),
    "tokenizer.json": ("query",),
}


@pytest.mark.parametrize("name", IN_BUNDLE)
def test_deep_json_in_a_bundle_is_exit_4(name: str, tiny_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    file = tmp_path / "bundle" / name
    file.parent.mkdir(exist_ok=True)
    deep_header(file) if file.suffix == ".safetensors" else file.write_bytes(DEEP)
    for verb in IN_BUNDLE[name]:
        code, message = run(verb, tmp_path / "bundle", *(["a film"] if verb == "query" else []))
        assert code == 4, (verb, message)
        assert str(file) in message
        assert "Traceback" not in message


@pytest.mark.parametrize(
    "name",
    [
        "filterllm.json",
        "head.safetensors",
        "users-00001-of-00001.safetensors",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "base/config.json",
        "base/generation_config.json",
        "base/tokenizer.json",
        "base/tokenizer_config.json",
        "base/model.safetensors",
        "base/model.safetensors.index.json",
    ],
)
def test_deep_json_in_a_checkpoint_is_exit_4(
    name: str, tiny_checkpoint: Callable[..., Checkpoint], item_texts: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    shutil.copytree(tiny_checkpoint("llama").base.parent, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / name
    if name.endswith("index.json"):
        file.with_name("model.safetensors").unlink()
    deep_header(file) if file.suffix == ".safetensors" else file.write_bytes(DEEP)
    (tmp_path / "items.txt").write_text("\n".join(item_texts))
    options = ("--calibration", tmp_path / "items.txt", "--k", 10)
    code, message = run("build", tmp_path / "checkpoint", "--out", tmp_path / "b", *options)
    assert code == 4, message
    assert str(file) in message


def test_deep_json_in_a_file_of_texts_is_exit_4(tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(b'{"text": "a film"}\n' + DEEP + b"\n")
    code, message = run("query", tiny_bundle.path, "--file", tmp_path / "items.jsonl")
    assert code == 4
    assert "items.jsonl, line 2" in message


def test_deep_json_in_the_records_of_interrupted_work(tmp_path: Path) -> None:
    (tmp_path / ".build.json").write_bytes(DEEP)
    with pytest.raises(BundleError, match=r"\.build\.json is not JSON \(it is nested deeper than 64"):
        Ledger(tmp_path)
    (tmp_path / ".build.json").write_text('{"users": 1}')
    with pytest.raises(BundleError, match="holds the step 1; expected a key and files"):
        Ledger(tmp_path)
    from fllm_export.table import writer

    (tmp_path / "users").mkdir()
    (tmp_path / "users" / writer.LEDGER).write_bytes(DEEP)
    with pytest.raises(BundleError, match=f"{writer.LEDGER} is damaged .it is nested deeper"):
        UserTable.create(tmp_path / "users", np.ones((1, 2), np.float32))


def test_deep_json_in_the_state_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from fllm_export.training.run_state import RUN_FILE, RunState

    (tmp_path / RUN_FILE).write_bytes(DEEP)
    with pytest.raises(BundleError, match=r"run\.json is not JSON \(it is nested deeper than 64"):
        RunState.open(tmp_path, {})
