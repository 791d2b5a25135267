"""The modules of a sentence-transformers directory: ``modules.json`` and the folders that it names.

Only files are read. Classes that ``modules.json`` names are looked up in a table here and never imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fllm_export.checkpoint.adapter import ADAPTER_FILES
from fllm_export.checkpoint.base import CONFIG_FILE, BaseModel
from fllm_export.checkpoint.feature_spec import Activation
from fllm_export.checkpoint.features import Dense, Features, Normalize, Step
from fllm_export.checkpoint.sentence_texts import SentenceTexts
from fllm_export.checkpoint.spec import Pooling
from fllm_export.checkpoint.tensors import FloatArray, open_tensors
from fllm_export.checkpoint.torch_file import read_torch_file, tensor_array
from fllm_export.errors import BundleError
from fllm_export.files import check_name
from fllm_export.strict_json import read_list, read_object

MODULES_FILE = "modules.json"

_MODULES_MOST = 32
_WEIGHTS, _TORCH_WEIGHTS = "model.safetensors", "pytorch_model.bin"
_WEIGHT, _BIAS = "linear.weight", "linear.bias"
_SENTENCE = "sentence_embedding"

# Both the old names (sentence_transformers.models.Pooling) and those of later releases
# (sentence_transformers.sentence_transformer.modules.pooling.Pooling).
_CLASS = re.compile(r"sentence_transformers(?:\.\w+)*\.(\w+)")
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")

_POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_WIDTH_KEYS = ("embedding_dimension", "word_embedding_dimension")
_POOLING_KEYS = ("pooling_mode", "include_prompt", *_WIDTH_KEYS, *_OLD_POOLINGS)

_ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
_DENSE_KEYS = ("in_features", "out_features", "bias", "activation_function")
_CHANNELS = ("module_input_name", "module_output_name")
_CHANNEL_WORDS = f"{_SENTENCE}, the vector that pooling makes"
_EXACT_MODULES = "Only models of these modules can be exported exactly"


@dataclass(frozen=True)
class SentenceModules:
    """A sentence-transformers model as this project computes it: encoder, pooling, features.

    Attributes:
        transformer: the Hugging Face directory of its Transformer module.
        pooling: which hidden state stands for a text.
        features: the steps after pooling, with their weights.
        texts: what happens to a text before the encoder.
        hidden: dimensions of the hidden state, as the Pooling module declares them.
    """

    transformer: Path
    pooling: Pooling
    features: Features
    texts: SentenceTexts
    hidden: int

    @property
    def dim(self) -> int:
        """Dimensions of a text's vector."""
        width = self.features.width(self.hidden)
        assert width is not None
        return width

    @classmethod
    def read(cls, directory: Path) -> SentenceModules:
        """Read a directory that ``SentenceTransformer.save`` wrote; no code of it or for it is run.

        Raises:
            BundleError: a file is missing or damaged, a name leads outside the directory, the modules do not fit
                together, or a module or one of its settings cannot be expressed; it is named.
            HardwareError: weights are a torch file and torch is not installed.
        """
        entries = _entries(directory / MODULES_FILE)
        kinds = [kind for kind, _ in entries]
        if kinds[:2] != ["Transformer", "Pooling"] or not {"Transformer", "Pooling"}.isdisjoint(kinds[2:]):
            raise BundleError(
                f"{directory / MODULES_FILE} lists the modules {', '.join(kinds) or 'none'}",
                expected="a Transformer, then a Pooling, then Dense and Normalize modules",
                fix=_EXACT_MODULES,
            )
        transformer, pooling_folder = entries[0][1], entries[1][1]
        if (transformer / ADAPTER_FILES[0]).is_file():
            raise BundleError(
                f"{transformer / ADAPTER_FILES[0]} exists",
                expected="a Transformer module without an adapter",
                fix="Merge the adapter with PEFT's merge_and_unload, and save the model again",
            )
        texts = SentenceTexts.read(directory, transformer)
        pooling, hidden = _pooling(pooling_folder / CONFIG_FILE, texts.prompt)
        found = BaseModel.check(transformer).hidden
        if found not in (None, hidden):
            raise BundleError(
                f"{pooling_folder / CONFIG_FILE}: {_WIDTH_KEYS[0]} is {hidden}",
                expected=f"{found}, the hidden size of the encoder in {transformer}",
            )
        steps = [step for kind, folder in entries[2:] if (step := _step(kind, folder)) is not None]
        features = Features(tuple(steps), str(directory / MODULES_FILE))
        features.width(hidden)
        return cls(transformer, pooling, features, texts, hidden)


def _entries(path: Path) -> list[tuple[str, Path]]:
    """Return kind and folder of each module, in the order in which the modules are applied."""
    if not path.is_file():
        raise BundleError(
            f"{path} does not exist",
            expected="a sentence-transformers directory",
            fix="Write it with SentenceTransformer.save",
        )
    listed = read_list(path)
    if len(listed) > _MODULES_MOST:
        raise BundleError(f"{path} lists {len(listed)} modules", expected=f"at most {_MODULES_MOST}")
    found = []
    for entry in listed:
        kind, folder = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(folder, str):
            raise BundleError(
                f"{path} holds the entry {entry!r:.80}", expected="an object with the strings 'type' and 'path'"
            )
        if folder:
            check_name(path, folder)
        match = _CLASS.fullmatch(kind)
        if match is None or match[1] not in _KINDS:
            raise BundleError(
                f"{path} lists a module of the type {kind!r:.120}, which is not supported",
                expected="the modules " + ", ".join(_KINDS) + " of sentence_transformers",
                fix="Choose a model without it; no code that comes with a model is run",
            )
        found.append((match[1], path.parent / folder))
    return found


def _pooling(path: Path, prompt: str) -> tuple[Pooling, int]:
    """Return the pooling and the hidden state's dimensions of a Pooling module."""
    config = read_object(path)
    _check_keys(path, config, _POOLING_KEYS)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_POOLINGS.items() if _flag(path, config, key, default=False)]
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in _POOLINGS:
        raise BundleError(
            f"{path}: the pooling is {' and '.join(map(str, modes)) or 'not set'}",
            expected="exactly one of " + ", ".join(_POOLINGS),
            fix="Choose a model with one of these poolings; another pooling makes other vectors",
        )
    if prompt and not _flag(path, config, "include_prompt", default=True):
        raise BundleError(
            f"{path}: include_prompt is false and the model puts the prompt {prompt!r:.60} before texts",
            expected="a pooling over all tokens",
            fix="Choose a model without a default prompt, or one that pools the prompt too",
        )
    width = next((config[key] for key in _WIDTH_KEYS if key in config), None)
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise BundleError(f"{path}: {_WIDTH_KEYS[0]} is {width!r}", expected="an integer, 1 or greater")
    return _POOLINGS[modes[0]], width


def _step(kind: str, folder: Path) -> Step | None:
    """Return the step that a module after the pooling makes; None where it changes nothing (Dropout)."""
    if kind == "Dense":
        return _dense(folder)
    path = folder / CONFIG_FILE
    if kind == "Normalize" and path.is_file():  # Older releases write no folder for it.
        config = read_object(path)
        _check_keys(path, config, _CHANNELS)
        _check_channels(path, config)
    return Normalize() if kind == "Normalize" else None


def _dense(folder: Path) -> Dense:
    path = folder / CONFIG_FILE
    config = read_object(path)
    _check_keys(path, config, (*_DENSE_KEYS, *_CHANNELS, "use_residual"))
    _check_channels(path, config)
    if _flag(path, config, "use_residual", default=False):
        raise BundleError(f"{path}: use_residual is true", expected="false", fix=_EXACT_MODULES)
    # Tanh is what the library takes where the key is missing.
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise BundleError(
            f"{path}: activation_function is {activation!r:.120}",
            expected="one of " + ", ".join(_ACTIVATIONS),
            fix="Choose a model with one of these; no code that comes with a model is run",
        )
    shape = config.get("out_features"), config.get("in_features")
    with_bias = _flag(path, config, "bias", default=True)
    tensors = _weights(folder, {_WEIGHT, _BIAS} if with_bias else {_WEIGHT})
    if tensors[_WEIGHT].shape != shape:
        raise BundleError(
            f"tensor {_WEIGHT!r} in {folder} has the shape {list(tensors[_WEIGHT].shape)}",
            expected=f"[{shape[0]}, {shape[1]}], the out_features and in_features of {path}",
        )
    bias = tensors[_BIAS] if with_bias else np.zeros(len(tensors[_WEIGHT]), np.float32)
    return Dense(tensors[_WEIGHT], bias, _ACTIVATIONS[activation], f"the Dense module in {folder}")


def _weights(folder: Path, names: set[str]) -> dict[str, FloatArray]:
    """Return float32 arrays by name, from ``model.safetensors`` or else from ``pytorch_model.bin``."""
    path = folder / _WEIGHTS
    if path.is_file() or not (folder / _TORCH_WEIGHTS).is_file():
        stored = open_tensors(path)
        _check_names(path, set(stored), names)
        for name in names:
            stored[name].expect((None, None) if name == _WEIGHT else (None,))
        return {name: stored[name].read() for name in names}
    path = folder / _TORCH_WEIGHTS
    content = read_torch_file(path, _TORCH_WEIGHTS, "Save the model with safe_serialization=True")
    _check_names(path, set(content) if isinstance(content, dict) else {type(content).__name__}, names)
    assert isinstance(content, dict)
    return {name: _float_array(path, name, content[name]) for name in names}


def _float_array(path: Path, name: str, value: Any) -> FloatArray:
    import torch

    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        found = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise BundleError(f"{path}: {name!r} is of the type {found}", expected="a tensor of floating point")
    array: FloatArray = tensor_array(value).astype(np.float32)
    return array


def _check_names(path: Path, found: set[Any], wanted: set[str]) -> None:
    if found != wanted:
        held = ", ".join(sorted(map(str, found)))
        raise BundleError(f"{path} holds {held:.200}", expected="exactly " + ", ".join(sorted(wanted)))


def _check_keys(path: Path, config: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise BundleError(f"{path} has the unknown key {unknown[0]!r}", expected="only " + ", ".join(known))


def _check_channels(path: Path, config: dict[str, Any]) -> None:
    for key in _CHANNELS:
        if config.get(key) not in (None, _SENTENCE):
            raise BundleError(f"{path}: {key} is {config[key]!r}", expected=_CHANNEL_WORDS)


def _flag(path: Path, config: dict[str, Any], key: str, *, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise BundleError(f"{path}: {key} is {value!r}", expected="true or false")
    return value
