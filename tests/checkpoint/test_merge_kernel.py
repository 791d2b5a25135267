"""Adapters over features and kernel mappers fold like those over any linear layer, or are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from fllm_export.checkpoint.adapted import load_unmerged, torch_mapper  # noqa: E402
from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.feature_layers import feature_layers  # noqa: E402
from fllm_export.checkpoint.mapper import Mapper  # noqa: E402
from fllm_export.checkpoint.merge import merge  # noqa: E402
from fllm_export.checkpoint.model import FilterLLM, ItemEncoder  # noqa: E402
from fllm_export.errors import BundleError  # noqa: E402

from .adapters import TEXTS, relative, scores_of, tokens, write_adapter  # noqa: E402

STEPS = ("gelu", "normalize", "tanh")

COMPOSITE = {
    "both layers of the kernel": {"target_modules": ["mapper.0", "mapper.2"]},
    "features": {"target_modules": ["features.0", "features.2"]},
    "everything": {"target_modules": ["q_proj", "features.2", "mapper.0", "mapper.2", "user_embeddings"]},
    "whole mapper": {"target_modules": ["q_proj"], "modules_to_save": ["mapper"]},
    "whole features": {"target_modules": ["q_proj"], "modules_to_save": ["features"]},
}


@pytest.fixture
def checkpoint(tiny_checkpoint: Any) -> Checkpoint:
    made: Checkpoint = tiny_checkpoint("llama", mapper="kernel", lora=False, features=STEPS, max_length=128)
    return made


def fresh(checkpoint: Checkpoint) -> FilterLLM:
    encoder = transformers.AutoModel.from_pretrained(checkpoint.base)
    layers = feature_layers(checkpoint.features)
    item_encoder = ItemEncoder(encoder, "last", torch_mapper(checkpoint.mapper), layers)
    model = FilterLLM(item_encoder, checkpoint.spec.users, checkpoint.spec.dim)
    model.user_embeddings.weight.data = torch.from_numpy(np.concatenate(list(checkpoint.users.chunks())))
    return model.eval()


@pytest.mark.parametrize("name", COMPOSITE)
def test_an_adapter_over_kernel_and_features(name: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=8, **COMPOSITE[name])
    adapter = write_adapter(fresh(checkpoint), config, tmp_path / "adapter")
    scores, merged = scores_of(replace(checkpoint, adapter=adapter))
    reference = peft.PeftModel.from_pretrained(fresh(checkpoint), adapter).eval()
    with torch.inference_mode():
        ids = [tokens(checkpoint.base, text) for text in TEXTS]
        wanted, plain = (
            np.stack([model(input_ids=one, attention_mask=torch.ones_like(one))[0].numpy() for one in ids])
            for model in (reference, fresh(checkpoint))
        )
    assert relative(wanted, scores) < 1e-4
    assert relative(plain, wanted) > 1e-2
    assert merged.report.max_relative_error < 1e-4
    assert not [key for key in merged.encoder.state_dict() if "lora" in key]


def test_an_adapter_that_lets_the_kernel_overflow_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = fresh(checkpoint)
    config = peft.LoraConfig(r=4, lora_alpha=8000, target_modules=["mapper.0"])
    adapter = write_adapter(model, config, tmp_path / "adapter")
    with pytest.raises(BundleError) as caught:
        merge(replace(checkpoint, adapter=adapter), ["jazz"])
    assert f"the mapper merged with the adapter {adapter}: the exponent of row" in str(caught.value)


def test_pooled_is_the_features_in_numpy_too(checkpoint: Checkpoint) -> None:
    encoder = merge(checkpoint, TEXTS).encoder
    prompt = checkpoint.prompt()
    ids, mask = (torch.from_numpy(a) for a in prompt.batch(prompt.tokenize(checkpoint.tokenizer(), TEXTS)))
    bare = ItemEncoder(encoder.encoder, "last", torch.nn.Identity()).eval()
    with torch.inference_mode():
        states, x, z = bare.pooled(ids, mask).numpy(), encoder.pooled(ids, mask).numpy(), encoder(ids, mask).numpy()
    assert (states.shape[1], x.shape[1]) == (32, 20)
    np.testing.assert_allclose(checkpoint.features.apply(states), x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(checkpoint.mapper.apply(x), z, rtol=1e-5, atol=1e-5)


def test_features_stay_when_a_matrix_is_folded(checkpoint: Checkpoint) -> None:
    merged = merge(checkpoint, TEXTS)
    prompt = checkpoint.prompt()
    batch = [torch.from_numpy(a) for a in prompt.batch(prompt.tokenize(checkpoint.tokenizer(), TEXTS))]
    matrix = np.random.default_rng(3).standard_normal((5, checkpoint.spec.dim))
    folded = merged.then(matrix)
    assert folded.mapper == "kernel"
    with torch.inference_mode():
        wide, narrow = merged.encoder(*batch).numpy(), folded.encoder(*batch).numpy()
    np.testing.assert_allclose(narrow, wide @ matrix.T, rtol=1e-4, atol=1e-5 * np.abs(wide).max())


def test_numbers_that_overflow_behind_exp_are_noticed(checkpoint: Checkpoint) -> None:
    """The exponents are bounded; what the last layer makes of them is looked at, text by text."""
    weights = {name: value.copy() for name, value in checkpoint.mapper.weights.items()}
    weights["0.bias"] += 80
    weights["2.weight"] = np.full_like(weights["2.weight"], 1e10)
    huge = replace(checkpoint, mapper=Mapper("kernel", weights))
    for action in (lambda: load_unmerged(huge).item_vectors(["jazz"]), lambda: merge(huge, ["jazz"])):
        with pytest.raises(BundleError, match="not finite for the text 'jazz'"):
            action()
