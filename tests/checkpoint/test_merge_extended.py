"""Folding adapters of models whose vocabulary was extended by the users."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.merge import load_unmerged, merge  # noqa: E402
from fllm_export.errors import ParityError  # noqa: E402

from .adapters import TEMPLATE, TEXTS, USERS, VOCABULARY, perturb, relative, scores_of, tokens, write_adapter  # noqa: E402


def extended_llama(source: Path, path: Path, *, tied: bool, users: int = USERS) -> Path:
    """A causal LM whose embeddings have ``users`` rows more than its tokenizer has words."""
    torch.manual_seed(11)
    config = transformers.AutoConfig.from_pretrained(source)
    config.vocab_size, config.tie_word_embeddings = VOCABULARY + users, tied
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / file, path / file)
    return path


def causal_logits(model: Any, base: Path) -> np.ndarray:
    model.eval()
    with torch.inference_mode():
        return np.stack([model(input_ids=tokens(base, text)).logits[0, -1].numpy() for text in TEXTS])


EXTENDED = {
    "no adapter": None,
    "encoder": {"target_modules": ["q_proj", "v_proj"]},
    "lm_head": {"target_modules": ["q_proj", "lm_head"]},
    "embed_tokens": {"target_modules": ["embed_tokens"]},
    "both embeddings": {"target_modules": ["embed_tokens", "lm_head"]},
    "whole lm_head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "whole tied": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "some tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, VOCABULARY, VOCABULARY + 5]},
}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("name", EXTENDED)
def test_extended_vocabulary(name: str, tied: bool, tiny_llama_dir: Path, tmp_path: Path) -> None:
    base = extended_llama(tiny_llama_dir, tmp_path / "base", tied=tied)
    kind = transformers.AutoModelForCausalLM
    adapter, reference = None, kind.from_pretrained(base)
    if EXTENDED[name] is not None:
        config = peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **EXTENDED[name])
        adapter = write_adapter(kind.from_pretrained(base), config, tmp_path / "adapter")
        reference = peft.PeftModel.from_pretrained(reference, adapter)
    wanted = causal_logits(reference, base)[:, VOCABULARY:]

    checkpoint = Checkpoint.from_extended_vocabulary(
        base, first_user_row=VOCABULARY, adapter=adapter, template=TEMPLATE, ids=range(100, 100 + USERS)
    )
    checkpoint.save(tmp_path / "checkpoint")
    loaded = Checkpoint.load(tmp_path / "checkpoint")
    assert loaded.fingerprint() == checkpoint.fingerprint()
    scores, merged = scores_of(loaded)
    assert relative(wanted, scores) < 1e-4
    if adapter is not None:
        assert relative(causal_logits(kind.from_pretrained(base), base)[:, VOCABULARY:], scores) > 1e-2
    np.testing.assert_array_equal(merged.users.ids, np.arange(100, 100 + USERS))

    unmerged = load_unmerged(loaded)
    assert relative(wanted, unmerged.item_vectors(TEXTS) @ np.concatenate(list(unmerged.users.chunks())).T) < 1e-4
    untouched = adapter is None or name == "encoder"
    assert (merged.users is loaded.users) is untouched
    # The users are outputs only: their input rows are not exported.
    assert merged.encoder.encoder.get_input_embeddings().weight.shape[0] == VOCABULARY
    assert not [name for name, _ in merged.encoder.named_modules() if "lm_head" in name]


def test_adapter_of_trainable_tokens_alone(tiny_llama_dir: Path, tmp_path: Path) -> None:
    base = extended_llama(tiny_llama_dir, tmp_path / "base", tied=True)
    kind = transformers.AutoModelForCausalLM
    config = peft.TrainableTokensConfig(token_indices=[5, VOCABULARY + 1], target_modules=["embed_tokens"])
    adapter = write_adapter(kind.from_pretrained(base), config, tmp_path / "adapter")
    wanted = causal_logits(peft.PeftModel.from_pretrained(kind.from_pretrained(base), adapter), base)[:, VOCABULARY:]
    checkpoint = Checkpoint.from_extended_vocabulary(
        base, first_user_row=VOCABULARY, adapter=adapter, template=TEMPLATE
    )
    assert relative(wanted, scores_of(checkpoint)[0]) < 1e-4


def test_vocabulary_extended_in_training_lies_in_the_adapter(tiny_llama_dir: Path, tmp_path: Path) -> None:
    kind = transformers.AutoModelForCausalLM
    torch.manual_seed(2)
    model = kind.from_pretrained(tiny_llama_dir)
    model.resize_token_embeddings(VOCABULARY + USERS, mean_resizing=False)
    model.lm_head.weight.data[VOCABULARY:] = torch.randn(USERS, 32)
    config = peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", target_modules=["q_proj"])
    wrapped = peft.get_peft_model(model, config)
    perturb(wrapped)
    wrapped.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=True)
    wanted = causal_logits(wrapped, tiny_llama_dir)[:, VOCABULARY:]

    checkpoint = Checkpoint.from_extended_vocabulary(
        tiny_llama_dir, first_user_row=VOCABULARY, adapter=tmp_path / "adapter", template=TEMPLATE
    )
    assert checkpoint.spec.users == USERS
    assert relative(wanted, scores_of(checkpoint)[0]) < 1e-4


def test_bias_of_the_lm_head_becomes_the_users_bias(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    config = transformers.PhiConfig(
        vocab_size=VOCABULARY + USERS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.2,
        pad_token_id=0,
    )
    model = transformers.PhiForCausalLM(config)
    model.lm_head.bias.data = torch.randn(VOCABULARY + USERS)
    model.save_pretrained(tmp_path)
    shutil.copy(tiny_llama_dir / "tokenizer.json", tmp_path)
    shutil.copy(tiny_llama_dir / "tokenizer_config.json", tmp_path)
    adapter = write_adapter(model, peft.LoraConfig(target_modules=["lm_head"]), tmp_path / "adapter")
    checkpoint = Checkpoint.from_extended_vocabulary(
        tmp_path, first_user_row=VOCABULARY, adapter=adapter, template=TEMPLATE
    )
    reference = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(tmp_path), adapter)
    scores, merged = scores_of(checkpoint)
    assert relative(causal_logits(reference, tmp_path)[:, VOCABULARY:], scores) < 1e-4
    np.testing.assert_allclose(merged.users.bias, model.lm_head.bias.data[VOCABULARY:].numpy())
    np.testing.assert_allclose(load_unmerged(checkpoint).users.bias, merged.users.bias)


def test_scaled_logits_are_refused(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = transformers.GraniteConfig(
        vocab_size=VOCABULARY + USERS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        logits_scaling=8.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    transformers.GraniteForCausalLM(config).save_pretrained(tmp_path)
    shutil.copy(tiny_llama_dir / "tokenizer.json", tmp_path)
    checkpoint = Checkpoint.from_extended_vocabulary(tmp_path, first_user_row=VOCABULARY, template=TEMPLATE)
    with pytest.raises(ParityError, match="differ by") as caught:
        merge(checkpoint, TEXTS)
    assert "at most 0.0001" in str(caught.value)
    assert "scale or cap" in str(caught.value)
