"""Base models that Transformers cannot load, or would fill with random weights: refused in words, never built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fllm_export.checkpoint.base import BaseModel  # noqa: E402
from fllm_export.checkpoint.pretrained import load_base, module_names, quiet  # noqa: E402
from fllm_export.errors import BundleError, HardwareError  # noqa: E402

Tensors = dict[str, np.ndarray]


@pytest.fixture
def base(tiny_bert_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert_dir, tmp_path / "base"))


def configure(base: Path, **fields: Any) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **fields}))


def change(base: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(base / "model.safetensors")
    edit(tensors)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


def load(base: Path) -> Any:
    with quiet():
        return load_base(BaseModel.check(base), transformers.AutoModel)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            r"quantization_config \(.bitsandbytes.\): the weights of the base model are quantised",
        ),
        ({"quantization_config": {"quant_method": "fp8"}}, r"quantization_config \(.fp8.\)"),
        ({"quantization_config": "of a name"}, r"quantization_config \(.of a name.\)"),
        ({"model_type": "quux"}, "model_type is 'quux', which transformers .* does not have; expected an architecture"),
        (
            {"model_type": "quux", "auto_map": {"AutoModel": "modeling.Quux"}},
            r"needs code of its own \(auto_map\), which is never run",
        ),
        ({"model_type": None}, "model_type is None"),
        ({"model_type": ["bert"]}, r"model_type is \['bert'\]"),
        ({"is_encoder_decoder": True}, r"is an encoder-decoder, or the encoder of one \(bert\)"),
        ({"hidden_size": "big"}, "cannot be loaded .*hidden_size"),
        ({"num_attention_heads": 3}, "cannot be loaded .*not a multiple"),
        ({"hidden_act": "quux"}, "cannot be loaded .*quux"),
        ({"intermediate_size": 8}, r"intermediate.dense.bias' .* has the shape \[64\]; expected \[8\]"),
        ({"num_hidden_layers": 1}, "tensor 'encoder.layer.1.* has no place in the BertModel of its config"),
        ({"num_hidden_layers": 3}, "lack the tensor 'encoder.layer.2"),
    ],
)
def test_configurations_that_need_what_is_not_there(base: Path, fields: dict[str, Any], words: str) -> None:
    configure(base, **fields)
    with pytest.raises(BundleError, match=words):
        load(base)


def test_a_missing_package_is_named(base: Path) -> None:
    configure(base, attn_implementation="flash_attention_2")
    with pytest.raises(HardwareError, match=r"needs a package that is not installed: .*FlashAttention2"):
        load(base)


def test_the_encoder_of_a_t5_alone(base: Path) -> None:
    config = transformers.T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    transformers.T5EncoderModel(config).save_pretrained(base)
    with pytest.raises(BundleError, match=r"is an encoder-decoder, or the encoder of one \(t5\)"):
        load(base)
    with pytest.raises(BundleError, match="is an encoder-decoder"):
        module_names(BaseModel.check(base), transformers.AutoModelForCausalLM)


def test_weights_that_are_missing_or_of_another_use(base: Path) -> None:
    change(base, lambda tensors: tensors.pop("pooler.dense.weight"))
    change(base, lambda tensors: tensors.update({"cls.predictions.bias": np.zeros(4, np.float32)}))
    change(base, lambda tensors: tensors.update({"embeddings.position_ids": np.arange(512)[None]}))
    assert load(base).config.model_type == "bert"  # none of the three is part of an item vector
    change(base, lambda tensors: tensors.pop("encoder.layer.0.attention.self.query.weight"))
    with pytest.raises(BundleError, match=r"lack the tensor 'encoder.layer.0.attention.self.query.weight'"):
        load(base)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(base: Path, value: float) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors["embeddings.word_embeddings.weight"][7, 3] = value

    change(base, spoil)
    with pytest.raises(BundleError, match=r"'embeddings.word_embeddings.weight' .* NaN or infinite number in row 7"):
        load(base)
