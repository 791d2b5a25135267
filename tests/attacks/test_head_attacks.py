"""Hostile and damaged features and kernels: each is refused with a message that names what was found and expected."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .tampering import edit_json, edit_tensors, load, merged, refused

pytest.importorskip("torch")

HEAD = "head.safetensors"
STEPS = [{"kind": "dense", "activation": "tanh"}, {"kind": "normalize"}, {"kind": "dense", "activation": "gelu"}]

Change = Callable[[dict[str, np.ndarray]], object]


@pytest.fixture
def head(tiny_checkpoint: Any, tmp_path: Path) -> Path:
    """A sound BERT checkpoint: dense tanh [20, 32], normalize, dense gelu [20, 20], kernel to 16 dims by 24."""
    made = tiny_checkpoint("bert", mapper="kernel", features=("tanh", "normalize", "gelu"), lora=False)
    shutil.copytree(made.base.parent, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_the_sound_one_is_sound(head: Path) -> None:
    merged(head)()


# What filterllm.json says


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (None, ["features is None", "a list of at least one step"]),
        ("normalize", ["features is 'normalize'", "a list"]),
        ([[]], ["features[0] is []", "an object with the key 'kind'"]),
        ([*STEPS, {"kind": "layer_norm"}], ["features[3]: kind is 'layer_norm'", "one of normalize, dense"]),
        ([{"kind": "dense", "activation": "__import__('os')"}], ["features[0]: activation is", "one of identity"]),
        ([{"kind": "dense", "activation": 1e400}], ["features[0]: activation is"]),
        ([{"kind": "normalize", "activation": "tanh"}], ["features[0] has the unknown key 'activation'"]),
        (STEPS[:2], ["the tensor 'features.2.bias'", "features.0.weight, features.0.bias, as filterllm.json"]),
        ([*STEPS, STEPS[0]], ["lacks the tensor 'features.3.weight'", "holds features.0.bias, features.0.weight"]),
        ([STEPS[0], STEPS[2], STEPS[1]], ["lacks the tensor 'features.1.weight'", "Correct the file, or"]),
    ],
)
def test_features_that_are_not_those_of_the_file(features: object, words: list[str], head: Path) -> None:
    edit_json(head / "filterllm.json", features=features)
    refused(load(head), "filterllm.json" if "features.0.weight" not in words[0] else HEAD, *words)


def test_features_of_a_checkpoint_that_declares_none(head: Path) -> None:
    file = head / "filterllm.json"
    content = file.read_text()
    start = content.index('"features"')
    file.write_text(content[:start] + content[content.index("]", start) + 1 :].lstrip(",\n "))
    refused(
        load(head), head / HEAD, "the tensor 'features.0.bias'", "no tensor of features, as filterllm.json declares"
    )


@pytest.mark.parametrize("version", [1, 4])
def test_another_schema_version(version: int, head: Path) -> None:
    edit_json(head / "filterllm.json", schema_version=version)
    expected = "expected 2, because of the mapper kernel" if version == 1 else "at most 3"
    refused(load(head), head / "filterllm.json", f"schema_version is {version}", expected)


def test_an_mlp_that_calls_itself_a_kernel(head: Path) -> None:
    """The tensors have the same names; nothing but the kind tells them apart, and bounded exponents."""
    edit_tensors(head / HEAD, lambda tensors: tensors["mapper.0.weight"].__imul__(1000))
    refused(load(head), head / HEAD, "the exponent of row", "at most 88", "Subtract a number")


# The tensors


def replaced(name: str, value: np.ndarray) -> Change:
    return lambda tensors: tensors.update({name: value})


def element(name: str, value: float) -> Change:
    return lambda tensors: tensors[name].reshape(-1).__setitem__(3, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("features.2.bias"), ["lacks the tensor 'features.2.bias'"]),
        (lambda tensors: tensors.pop("mapper.2.bias"), ["lacks the tensor 'mapper.2.bias'", "the mapper kind kernel"]),
        (replaced("features.1.weight", np.ones((1, 1), np.float32)), ["the tensor 'features.1.weight'"]),
        (replaced("features.x", np.ones(1, np.float32)), ["the tensor 'features.x'"]),
        (replaced("feature.0.weight", np.ones(1, np.float32)), ["unknown tensor 'feature.0.weight'", "features."]),
        (replaced("features.0.weight", np.ones((20, 31), np.float32)), ["[20, 31]", "expected [any, 32]"]),
        (replaced("features.2.weight", np.ones((20, 9), np.float32)), ["features.2.weight", "expected [any, 20]"]),
        (replaced("features.0.weight", np.ones(20, np.float32)), ["'features.0.weight'", "shape [20]"]),
        (replaced("features.0.weight", np.ones((20, 0), np.float32)), ["'features.0.weight'", "shape [20, 0]"]),
        (replaced("features.0.bias", np.ones(3, np.float32)), ["features.0: bias has the shape [3]", "[20]"]),
        (replaced("features.0.bias", np.ones(20, np.int64)), ["'features.0.bias'", "dtype I64"]),
        (replaced("mapper.0.weight", np.ones((24, 9), np.float32)), ["takes 9 dimensions", "20, the dimensions"]),
        (replaced("mapper.2.weight", np.ones((16, 23), np.float32)), ["mapper.2.weight", "expected [any, 24]"]),
        (replaced("mapper.0.bias", np.ones((24, 1), np.float32)), ["'mapper.0.bias'", "shape [24, 1]"]),
        (element("features.2.weight", np.nan), ["'features.2.weight'", "NaN or infinite", "row 0"]),
        (element("features.0.bias", -np.inf), ["'features.0.bias'", "NaN or infinite", "row 3"]),
        (element("mapper.0.weight", np.inf), ["'mapper.0.weight'", "NaN or infinite"]),
        (element("mapper.0.weight", 3e38), ["the exponent of row 0 of mapper.0.weight can be 3", "at most 88"]),
        (element("mapper.0.bias", 89.0), ["the exponent of row 3 of mapper.0.weight can be 9", "at most 88"]),
    ],
)
def test_tensors_that_do_not_belong_together(change: Change, words: list[str], head: Path) -> None:
    edit_tensors(head / HEAD, change)
    refused(load(head), head / HEAD, *words)


def test_a_file_that_is_cut_off(head: Path) -> None:
    file = head / HEAD
    file.write_bytes(file.read_bytes()[:-8])
    refused(load(head), file, "is damaged", "a whole safetensors file")


def test_numbers_that_overflow_on_the_way(head: Path) -> None:
    """A dense step of +-3e38 is finite where it lies; what it makes of a text is not, and has no direction."""
    signs = np.random.default_rng(0).choice([-1, 1], (20, 20))
    edit_tensors(head / HEAD, replaced("features.2.weight", (3e38 * signs).astype(np.float32)))
    refused(merged(head), "not finite for the text 'jazz'", "finite numbers for every text")
