"""Importing what the official FilterLLM code writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.merge import merge  # noqa: E402
from fllm_export.errors import BundleError  # noqa: E402

TEMPLATE = "Which readers would a paper titled {text} attract?"
HIDDEN, USERS = 32, 30


@pytest.fixture
def mapper() -> Any:
    torch.manual_seed(1)
    return torch.nn.Linear(HIDDEN, HIDDEN)


@pytest.fixture
def table() -> Any:
    torch.manual_seed(2)
    return torch.nn.Embedding(USERS, HIDDEN)


@pytest.fixture
def official(tiny_llama_dir: Path, mapper: Any, table: Any, tmp_path: Path) -> Path:
    """The files of a training run: LoRA of rank 8 on PEFT's default projections, mapper and user table."""
    torch.manual_seed(3)
    config = peft.LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, task_type="CAUSAL_LM", init_lora_weights=False)
    model = peft.get_peft_model(transformers.LlamaForCausalLM.from_pretrained(tiny_llama_dir), config)
    model.save_pretrained(str(tmp_path / "run"))
    content = {"mapper": mapper.state_dict(), "user_embeddings": table.state_dict()}
    torch.save(content, tmp_path / "run" / "custom_weights.pt")
    return tmp_path / "run"


def load(base: Path, run: Path, **options: Any) -> Checkpoint:
    return Checkpoint.from_filterllm(base, run, run / "custom_weights.pt", template=TEMPLATE, **options)


def test_scores_equal_the_official_formula(
    tiny_llama_dir: Path, official: Path, mapper: Any, table: Any, tmp_path: Path
) -> None:
    checkpoint = load(tiny_llama_dir, official)
    checkpoint.save(tmp_path / "checkpoint")
    merged = merge(Checkpoint.load(tmp_path / "checkpoint"), ["matrix factorization", "yeast"])
    prompt, tokenizer = checkpoint.prompt(), checkpoint.tokenizer()
    ids, mask = prompt.batch(prompt.tokenize(tokenizer, ["deep learning for protein folding", "jazz"]))

    encoder = transformers.LlamaForCausalLM.from_pretrained(tiny_llama_dir)
    encoder = peft.PeftModel.from_pretrained(encoder, official).eval()
    with torch.inference_mode():
        # As in the official forward: no position ids, hidden state of position -1, which left padding makes the last.
        states = encoder(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), output_hidden_states=True
        ).hidden_states[-1][:, -1, :]
        wanted = torch.relu(mapper(states)) @ table.weight.T
        found = merged.encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    rows = np.concatenate(list(merged.users.chunks()))
    np.testing.assert_allclose(found @ rows.T, wanted.numpy(), rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert merged.report.lora_layers == 4


def test_flat_names_are_the_same_checkpoint(tiny_llama_dir: Path, official: Path, mapper: Any, table: Any) -> None:
    nested = load(tiny_llama_dir, official).fingerprint()
    flat = {f"mapper.{k}": v for k, v in mapper.state_dict().items()}
    torch.save(
        {**flat, "user_embeddings.weight": table.weight, "item_embeddings.weight": torch.zeros(2, 2)},
        official / "custom_weights.pt",
    )
    assert load(tiny_llama_dir, official).fingerprint() == nested


def test_two_layer_mapper_and_its_evaluation_without_mapper(tiny_llama_dir: Path, official: Path, table: Any) -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(HIDDEN, 24), torch.nn.ReLU(), torch.nn.Linear(24, HIDDEN))
    torch.save({"mapper": layers.state_dict(), "user_embeddings": table.state_dict()}, official / "custom_weights.pt")
    checkpoint = load(tiny_llama_dir, official, mapper="mlp")
    x = np.random.default_rng(0).standard_normal((3, HIDDEN)).astype(np.float32)
    np.testing.assert_allclose(checkpoint.mapper.apply(x), layers(torch.from_numpy(x)).detach().numpy(), atol=1e-5)
    assert load(tiny_llama_dir, official, mapper="identity").mapper.weights == {}
    with pytest.raises(BundleError) as caught:
        load(tiny_llama_dir, official)
    assert "lacks the tensor 'mapper.weight'" in str(caught.value)
    assert "mapper.0.weight" in str(caught.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, tiny_llama_dir: Path, official: Path, mapper: Any, table: Any) -> None:
    half = getattr(torch, dtype)
    mapper, table = mapper.to(half), table.to(half)
    torch.save({"mapper": mapper.state_dict(), "user_embeddings": table.state_dict()}, official / "custom_weights.pt")
    checkpoint = load(tiny_llama_dir, official, ids=range(7, 7 + USERS))
    np.testing.assert_array_equal(next(checkpoint.users.chunks()), table.weight.detach().float().numpy())
    np.testing.assert_array_equal(checkpoint.mapper.weights["bias"], mapper.bias.detach().float().numpy())
    assert checkpoint.users.ids is not None
    assert checkpoint.users.ids[0] == 7


def test_user_table_is_mapped_and_not_loaded(tiny_llama_dir: Path, official: Path) -> None:
    checkpoint = load(tiny_llama_dir, official)
    maps = Path("/proc/self/maps").read_text()
    assert str(official / "custom_weights.pt") in maps
    assert checkpoint.users.rows == USERS


def test_old_torch_format(tiny_llama_dir: Path, official: Path, mapper: Any, table: Any) -> None:
    new = load(tiny_llama_dir, official).fingerprint()
    torch.save(
        {"mapper": mapper.state_dict(), "user_embeddings": table.state_dict()},
        official / "custom_weights.pt",
        _use_new_zipfile_serialization=False,
    )
    assert load(tiny_llama_dir, official).fingerprint() == new
