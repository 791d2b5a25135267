"""Hostile and unsupported sentence-transformers directories: refused by name, and no code of theirs runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fllm_export.checkpoint.base import BaseModel  # noqa: E402
from fllm_export.checkpoint.sentence_modules import SentenceModules  # noqa: E402
from fllm_export.errors import BundleError  # noqa: E402

from ..checkpoint.sentence_models import SentenceModel  # noqa: E402
from .tampering import edit_json, edit_tensors  # noqa: E402

MODELS = "sentence_transformers.models."
DENSE, SETTINGS = "2_Dense/config.json", "sentence_bert_config.json"


@pytest.fixture
def model(tiny_bert_dir: Path, tmp_path: Path) -> SentenceModel:
    """A sound model: mean pooling, a Dense module of [8, 32], Normalize."""
    written = SentenceModel(tmp_path / "model", tiny_bert_dir)
    written.pool()
    written.dense(8, 32)
    written.normalize()
    assert SentenceModules.read(written.path).dim == 8
    return written


def refused(model: SentenceModel, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        SentenceModules.read(model.path)


@pytest.mark.parametrize(
    "kind",
    [
        *(MODELS + name for name in ("LSTM", "CNN", "WordEmbeddings", "BoW", "WeightedLayerPooling", "LayerNorm")),
        "sentence_transformers.sparse_encoder.models.SpladePooling",
        "sentence_transformers.models.StaticEmbedding",
        "modeling.CustomPooling",
        "modeling--sentence_transformers.models.Normalize",
        "sentence_transformers.models.Normalize; import os",
        "xsentence_transformers.models.Normalize",
        "Normalize",
        "",
    ],
)
def test_modules_that_are_not_supported_are_named(model: SentenceModel, kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (model.path / "modeling.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    model.add(kind, "4_Module", {})
    refused(model, f"lists a module of the type '{kind}', which is not supported")
    assert not marker.exists()


@pytest.mark.parametrize(
    "path", ["..", "../other", "/etc", "a/../../other", "./1_Pooling", "1_Pooling/", "a//b", "a\0b", "1_Pooling/.."]
)
def test_paths_that_lead_outside_are_refused(model: SentenceModel, path: str) -> None:
    shutil.copytree(model.path, model.path.parent / "other")
    for number in (0, 1, 2, 3):
        entries = [dict(entry) for entry in model.entries]
        entries[number]["path"] = path
        model.put(model.path / "modules.json", entries)
        refused(model, "expected names of files inside its directory")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "holds a JSON dict; expected a JSON list"),
        ("[", "is not JSON"),
        ("[" * 100_000, "is not JSON .*nested deeper"),
        ("[]", "lists the modules none; expected a Transformer, then a Pooling"),
        ("[1]", "holds the entry 1; expected an object"),
        ('[{"type": "sentence_transformers.models.Transformer"}]', "expected an object with the strings"),
        ('[{"path": ""}]', "expected an object with the strings"),
        ('[{"path": 7, "type": "sentence_transformers.models.Transformer"}]', "expected an object with the strings"),
        ('[{"path": "", "type": ["x"]}]', "expected an object with the strings"),
        ('[{"path": "", "path": "", "type": "x"}]', "stands twice"),
        (json.dumps([{"path": "", "type": MODELS + "Normalize"}] * 33), "lists 33 modules; expected at most 32"),
    ],
)
def test_a_list_of_modules_that_is_none(model: SentenceModel, content: str, words: str) -> None:
    (model.path / "modules.json").write_text(content)
    refused(model, words)


@pytest.mark.parametrize(
    "order",
    [
        ("Transformer",),
        ("Pooling", "Transformer"),
        ("Transformer", "Dense", "Pooling"),
        ("Transformer", "Pooling", "Transformer"),
        ("Transformer", "Pooling", "Pooling"),
        ("Normalize",),
    ],
)
def test_modules_in_another_order_are_refused(model: SentenceModel, order: tuple[str, ...]) -> None:
    folders = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3_Normalize"}
    entries = [{"path": folders[kind], "type": MODELS + kind} for kind in order]
    model.put(model.path / "modules.json", entries)
    refused(model, f"lists the modules {', '.join(order)}; expected a Transformer, then a Pooling")


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        (
            "1_Pooling/config.json",
            {"pooling_mode_max_tokens": True},
            "pooling is max and mean; expected exactly one of",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "the pooling is max"),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "the pooling is weightedmean"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}, "the pooling is mean and cls"),
        ("1_Pooling/config.json", {"pooling_mode": {"a": []}}, "the pooling is "),
        ("1_Pooling/config.json", {"pooling_mode": []}, "the pooling is not set"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "the pooling is not set"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": "false"}, "is 'false'; expected true or false"),
        ("1_Pooling/config.json", {"pooling_mode_mean_sqrt_len_tokens": True}, "mean and mean_sqrt_len_tokens"),
        ("1_Pooling/config.json", {"pooling_mode_attention": False}, "unknown key 'pooling_mode_attention'"),
        ("1_Pooling/config.json", {"word_embedding_dimension": 31}, "is 31; expected 32, the hidden size"),
        ("1_Pooling/config.json", {"word_embedding_dimension": 10**40}, "0; expected 32, the hidden size"),
        (DENSE, {"in_features": 31}, r"has the shape \[8, 32\]; expected \[8, 31\]"),
        ("1_Pooling/config.json", {"word_embedding_dimension": True}, "is True; expected an integer"),
        (DENSE, {"activation_function": "os.system"}, "activation_function is 'os.system'; expected one of torch"),
        (DENSE, {"activation_function": None}, "activation_function is None"),
        (DENSE, {"activation_function": "torch.nn.modules.activation.PReLU"}, "PReLU"),
        (DENSE, {"in_features": 10**30}, r"has the shape \[8, 32\]; expected \[8, 1000"),
        (DENSE, {"out_features": None}, r"expected \[None, 32\]"),
        (DENSE, {"bias": False}, "holds linear.bias, linear.weight; expected exactly linear.weight"),
        (DENSE, {"bias": 1}, "bias is 1; expected true or false"),
        (DENSE, {"use_residual": True}, "use_residual is true"),
        (
            DENSE,
            {"module_input_name": "token_embeddings"},
            "module_input_name is 'token_embeddings'; expected sentence",
        ),
        (DENSE, {"custom": 1}, "unknown key 'custom'"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q"}, "default_prompt_name is 'q', whose prompt"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "q", "prompts": {"q": "{text}"}},
            "expected the name of a string in prompts, without",
        ),
        ("config_sentence_transformers.json", {"default_prompt_name": ["q"], "prompts": {}}, "default_prompt_name is"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q", "prompts": [1]}, "default_prompt_name is"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type is 'SparseEncoder'"),
        (SETTINGS, {"max_seq_length": 0}, "max_seq_length is 0"),
        (SETTINGS, {"max_seq_length": 10**100}, "expected an integer from 1 to 2147483647"),
        (SETTINGS, {"max_seq_length": 24.0}, "max_seq_length is 24.0"),
        (SETTINGS, {"max_seq_length": True}, "max_seq_length is True"),
        (SETTINGS, {"do_lower_case": "no"}, "do_lower_case is 'no'; expected true or false"),
        (SETTINGS, {"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
        (SETTINGS, {"model_args": {"rope_theta": 3}}, "model_args has 'rope_theta'; expected only"),
        (SETTINGS, {"model_args": [1]}, r"model_args has \[1\]"),
        (SETTINGS, {"layers": 3}, "the key 'layers' is unknown"),
        ("tokenizer_config.json", {"truncation_side": "left"}, "truncation_side is 'left'; expected right"),
        ("tokenizer_config.json", {"padding_side": "both"}, "padding_side is 'both'; expected left or right"),
    ],
)
def test_settings_that_cannot_be_expressed_are_named(
    model: SentenceModel, file: str, values: dict[str, Any], words: str
) -> None:
    model.put(model.path / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": None})
    edit_json(model.path / file, **values)
    refused(model, words)


def test_dense_modules_that_do_not_follow_each_other(model: SentenceModel) -> None:
    model.dense(4, 9)
    refused(model, r"features.2.weight has the shape \[4, 9\]; expected \[any, 8\]")


def test_a_prompt_that_is_not_pooled_is_refused(model: SentenceModel) -> None:
    edit_json(model.path / "1_Pooling" / "config.json", include_prompt=False)
    assert SentenceModules.read(model.path).texts.prompt == ""
    prompts = {"prompts": {"q": "query: "}, "default_prompt_name": "q"}
    model.put(model.path / "config_sentence_transformers.json", prompts)
    refused(model, "include_prompt is false and the model puts the prompt 'query: ' before texts")


def test_a_token_level_normalize_is_refused(model: SentenceModel) -> None:
    model.put(model.path / "3_Normalize" / "config.json", {"module_input_name": "token_embeddings"})
    refused(model, "module_input_name is 'token_embeddings'")


def test_an_adapter_in_the_transformer_is_refused(model: SentenceModel) -> None:
    model.put(model.path / "adapter_config.json", {})
    refused(model, "adapter_config.json exists; expected a Transformer module without an adapter")


@pytest.mark.parametrize(
    "file",
    ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json", DENSE, "2_Dense/model.safetensors"],
)
@pytest.mark.parametrize("how", ["gone", "empty", "loop", "folder", "dangling"])
def test_files_that_are_none(model: SentenceModel, file: str, how: str) -> None:
    path = model.path / file
    path.unlink()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "loop":
        path.symlink_to(path)
    elif how == "folder":
        path.mkdir()
    elif how == "dangling":
        path.symlink_to(path.parent / "nowhere")
    with pytest.raises(BundleError):
        tokenizer_of(model.path)


def tokenizer_of(path: Path) -> object:
    """Return the tokenizer, which is read when texts are."""
    return BaseModel.check(SentenceModules.read(path).transformer).tokenizer()


def edited(name: str, value: np.ndarray) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("linear.weight", np.zeros((8, 31), np.float32), r"has the shape \[8, 31\]; expected \[8, 32\]"),
        ("linear.weight", np.full((8, 32), np.nan, np.float32), "NaN or infinite"),
        ("linear.weight", np.zeros((8, 32), np.int64), "has the dtype I64"),
        ("linear.weight", np.zeros(8, np.float32), r"has the shape \[8\]; expected \[any, any\]"),
        ("linear.bias", np.zeros(7, np.float32), r"bias has the shape \[7\]; expected \[8\]"),
        ("linear.bias", np.zeros((8, 1), np.float32), r"has the shape \[8, 1\]; expected \[any\]"),
        ("residual.weight", np.zeros((8, 32), np.float32), "residual.weight; expected exactly linear.bias, linear.w"),
    ],
)
def test_dense_weights_that_do_not_fit(model: SentenceModel, name: str, value: np.ndarray, words: str) -> None:
    edit_tensors(model.path / "2_Dense" / "model.safetensors", edited(name, value))
    refused(model, words)


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_torch_file_with_code_is_refused(model: SentenceModel, tmp_path: Path) -> None:
    folder, marker = model.path / "2_Dense", tmp_path / "ran"
    weights: dict[str, Any] = {n: torch.from_numpy(v) for n, v in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    torch.save({**weights, "linear.bias": Payload(marker)}, file)
    refused(model, "holds more than tensors and was refused")
    file.write_bytes(pickle.dumps(Payload(marker)))
    refused(model, "holds more than tensors and was refused")
    assert not marker.exists()
    for content, words in (
        ({**weights, "linear.bias": 3}, "'linear.bias' is of the type int; expected a tensor"),
        ({**weights, "linear.bias": torch.zeros(8, dtype=torch.int64)}, "'linear.bias' is of the type torch.int64"),
        ({**weights, "linear.bias": torch.full((8,), float("inf"))}, "NaN or infinite"),
        ({**weights, 7: weights["linear.bias"]}, "expected exactly linear.bias, linear.weight"),
        ([weights], "holds list; expected exactly"),
        ({"linear.weight": weights["linear.weight"]}, "holds linear.weight; expected exactly"),
    ):
        torch.save(content, file)
        refused(model, words)
    torch.save(weights, file)
    assert SentenceModules.read(model.path).dim == 8
    save_file({"linear.weight": np.zeros((8, 32), np.float32)}, folder / "model.safetensors")
    refused(model, "model.safetensors holds linear.weight; expected exactly linear.bias, linear.weight")
