"""A PEFT adapter on disk: which files it has and what its tensors are called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fllm_export.checkpoint.tensors import StoredTensor, open_tensors
from fllm_export.errors import BundleError
from fllm_export.strict_json import read_object

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE)
PREFIX = "base_model.model."

PEFT_TYPES = ("LORA", "TRAINABLE_TOKENS")

# What PEFT puts between a module's name and the end of a tensor's name.
_SUFFIX = re.compile(
    r"\.(lora_(A|B|embedding_A|embedding_B|magnitude_vector)(\.weight|\.bias)?"
    r"|token_adapter\.trainable_tokens_delta|trainable_tokens_delta|base_layer(\.\w+)?|weight|bias)$"
)


def check_adapter(folder: Path) -> dict[str, Any]:
    """Check that an adapter's two files are there and whole, and return its config.

    Raises:
        BundleError: a file is missing or damaged, only a pickle is there, or the kind of adapter cannot be folded.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise BundleError(
            f"the adapter lacks {folder / CONFIG_FILE}",
            expected="a directory written by PEFT's save_pretrained",
            fix="Name the directory that holds adapter_config.json",
        )
    if not (folder / WEIGHTS_FILE).is_file():
        pickled = " (adapter_model.bin is a pickle and is refused)" if (folder / "adapter_model.bin").exists() else ""
        raise BundleError(
            f"the adapter lacks {folder / WEIGHTS_FILE}{pickled}",
            expected="weights in the safetensors format",
            fix="Save the adapter again with PEFT's save_pretrained, which writes safetensors",
        )
    config = read_object(folder / CONFIG_FILE)
    if config.get("peft_type") not in PEFT_TYPES:
        raise BundleError(
            f"{folder / CONFIG_FILE}: peft_type is {config.get('peft_type')!r}",
            expected=" or ".join(PEFT_TYPES) + ", which fold into dense weights",
        )
    if not adapter_tensors(folder):
        raise BundleError(f"{folder / WEIGHTS_FILE} holds no tensors", expected="the adapter's weights")
    return config


def adapter_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return the adapter's tensors, unread, by their names in the file.

    Raises:
        BundleError: the file is damaged, or a tensor's name does not begin with ``base_model.model.``.
    """
    tensors = dict(open_tensors(folder / WEIGHTS_FILE))
    for name, tensor in tensors.items():
        if not name.startswith(PREFIX):
            raise BundleError(f"unknown {tensor}", expected=f"names that begin with {PREFIX}")
    return tensors


def adapted_module(tensor_name: str) -> str:
    """Return the name of the module that an adapter's tensor belongs to, without PEFT's prefix and suffix."""
    name = tensor_name.removeprefix(PREFIX)
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    return name


def stored_whole(folder: Path, parameter: str) -> StoredTensor | None:
    """Return the tensor that the adapter stores in place of a parameter of the model, if it does.

    PEFT saves whole embeddings when the vocabulary was extended in training, when LoRA targets them, or when their
    module is listed in ``modules_to_save``.

    Args:
        folder: the adapter's directory.
        parameter: a name such as ``lm_head.weight``.
    """
    tensors = adapter_tensors(folder)
    module, _, last = parameter.rpartition(".")
    return tensors.get(f"{PREFIX}{parameter}", tensors.get(f"{PREFIX}{module}.base_layer.{last}"))
