"""Hostile and damaged adapters: each is refused before anything is folded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from .tampering import edit_json, edit_tensors, load, merged, refused

pytest.importorskip("torch")


def test_adapter_without_config(folder: Path) -> None:
    (folder / "adapter" / "adapter_config.json").unlink()
    refused(load(folder), folder / "adapter" / "adapter_config.json", "lacks", "save_pretrained")


def test_adapter_that_is_a_pickle(folder: Path) -> None:
    (folder / "adapter" / "adapter_model.safetensors").rename(folder / "adapter" / "adapter_model.bin")
    refused(load(folder), folder / "adapter", "adapter_model.bin is a pickle and is refused", "safetensors")


def test_adapter_cut_off(folder: Path) -> None:
    file = folder / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    refused(load(folder), file, "is damaged")


def test_adapter_config_that_is_not_json(folder: Path) -> None:
    (folder / "adapter" / "adapter_config.json").write_text("{'r': 4}")
    refused(load(folder), folder / "adapter" / "adapter_config.json", "is not JSON")


def test_adapter_that_cannot_be_folded(folder: Path) -> None:
    edit_json(folder / "adapter" / "adapter_config.json", peft_type="PROMPT_TUNING")
    refused(load(folder), folder / "adapter" / "adapter_config.json", "'PROMPT_TUNING'", "LORA")


def test_empty_adapter(folder: Path) -> None:
    save_file({}, folder / "adapter" / "adapter_model.safetensors")
    refused(load(folder), folder / "adapter" / "adapter_model.safetensors", "holds no tensors")


def test_adapter_with_a_foreign_tensor_name(folder: Path) -> None:
    edit_tensors(
        folder / "adapter" / "adapter_model.safetensors", lambda tensors: tensors.update(x=np.ones(1, np.float32))
    )
    refused(load(folder), folder / "adapter" / "adapter_model.safetensors", "'x'", "base_model.model.")


def test_adapter_lacks_a_tensor(folder: Path) -> None:
    name = "base_model.model.layers.1.self_attn.v_proj.lora_B.weight"
    edit_tensors(folder / "adapter" / "adapter_model.safetensors", lambda tensors: tensors.pop(name))
    refused(merged(folder), folder / "adapter" / "adapter_model.safetensors", f"lacks the tensor '{name}'", "8 tensors")


def test_adapter_tensor_of_the_wrong_shape(folder: Path) -> None:
    name = "base_model.model.layers.0.self_attn.q_proj.lora_A.weight"
    edit_tensors(
        folder / "adapter" / "adapter_model.safetensors",
        lambda tensors: tensors.update({name: np.zeros((4, 31), np.float32)}),
    )
    refused(merged(folder), folder / "adapter" / "adapter_model.safetensors", name, "[4, 31]", "[4, 32]")


def test_nan_in_the_adapter(folder: Path) -> None:
    name = "base_model.model.layers.0.self_attn.q_proj.lora_B.weight"
    edit_tensors(
        folder / "adapter" / "adapter_model.safetensors", lambda tensors: tensors[name].__setitem__((3, 0), np.nan)
    )
    refused(merged(folder), folder / "adapter" / "adapter_model.safetensors", name, "NaN", "row 3")


def test_adapter_whose_weights_overflow_when_folded(folder: Path) -> None:
    def huge(tensors: dict[str, np.ndarray]) -> None:
        for value in tensors.values():
            value[:] = 1e30

    edit_tensors(folder / "adapter" / "adapter_model.safetensors", huge)
    refused(merged(folder), folder / "adapter", "cannot be folded", "NaN")


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq"])
def test_adapter_that_would_change_the_base_model(folder: Path, start: str) -> None:
    file = folder / "adapter" / "adapter_config.json"
    edit_json(file, init_lora_weights=start)
    refused(merged(folder), file, f"init_lora_weights is '{start}'", "weights of the base model are computed again")


@pytest.mark.parametrize(
    "fields", [{"target_modules": "("}, {"target_modules": 5}, {"bias": "some"}, {"r": "four"}, {"lora_alpha": "eight"}]
)
def test_adapter_config_of_senseless_values(folder: Path, fields: dict[str, object]) -> None:
    file = folder / "adapter" / "adapter_config.json"
    edit_json(file, **fields)
    refused(merged(folder), file, "does not fit LlamaModel")


def test_adapter_config_of_a_newer_version(folder: Path) -> None:
    file = folder / "adapter" / "adapter_config.json"
    edit_json(file, use_of_tomorrow=False)
    merged(folder)()
    edit_json(file, use_of_tomorrow=True)
    refused(merged(folder), file, "'use_of_tomorrow'", "does not know", "version of peft")
