"""Folding adapters: every place an adapter may sit, against PEFT's own forward on the files as they lie on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.mapper import Mapper  # noqa: E402
from fllm_export.checkpoint.merge import load_unmerged, merge  # noqa: E402
from fllm_export.checkpoint.model import FilterLLM, ItemEncoder, make_mapper  # noqa: E402
from fllm_export.checkpoint.spec import CheckpointSpec  # noqa: E402
from fllm_export.checkpoint.users import UserRows  # noqa: E402
from fllm_export.errors import BundleError, ParityError, UsageError  # noqa: E402

from .adapters import DIM, TEMPLATE, TEXTS, USERS, relative, scores_of, tokens, write_adapter  # noqa: E402


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((USERS, DIM)).astype(np.float32)


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(6)
    return {
        "weight": (generator.standard_normal((DIM, 32)) * 0.3).astype(np.float32),
        "bias": (generator.standard_normal(DIM) * 0.3).astype(np.float32),
    }


@pytest.fixture
def make(tiny_llama_dir: Path, rows: np.ndarray, weights: dict[str, np.ndarray]) -> Callable[..., Checkpoint]:
    """A Llama checkpoint with the mapper linear_relu and the given adapter."""

    def build(adapter: Path | None, ids: Any = None, bias: Any = None) -> Checkpoint:
        spec = CheckpointSpec(
            base_model=str(tiny_llama_dir),
            template=TEMPLATE,
            pooling="last",
            max_length=128,
            padding_side="left",
            mapper="linear_relu",
            dim=DIM,
            users=USERS,
        )
        users = UserRows.from_array(rows, ids, bias)
        return Checkpoint(spec, tiny_llama_dir, adapter, Mapper("linear_relu", weights), users)

    return build


def fresh_filterllm(base: Path, rows: np.ndarray, weights: dict[str, np.ndarray]) -> FilterLLM:
    mapper = make_mapper("linear_relu", 32, DIM)
    mapper.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    model = FilterLLM(ItemEncoder(transformers.AutoModel.from_pretrained(base), "last", mapper), USERS, DIM)
    model.user_embeddings.weight.data = torch.from_numpy(rows.copy())
    return model


def official_scores(encoder: Any, base: Path, weights: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """The scores as the official code computes them: relu(mapper(last hidden state)) times the user rows."""
    encoder.eval()
    out = []
    for text in TEXTS:
        with torch.inference_mode():
            states = encoder(input_ids=tokens(base, text), output_hidden_states=True).hidden_states[-1][0, -1].numpy()
        out.append(np.maximum(weights["weight"] @ states + weights["bias"], 0) @ rows.T)
    return np.stack(out)


def test_no_adapter_reports_nothing_folded(make: Callable[..., Checkpoint]) -> None:
    _, merged = scores_of(make(None))
    assert merged.report.adapter_sha256 is None
    assert merged.report.lora_layers == 0
    assert merged.report.max_relative_error == 0
    assert merged.report.probes == len(TEXTS)


@pytest.mark.parametrize("over", ["encoder", "causal"])
@pytest.mark.parametrize("dora", [False, True])
def test_lora_on_the_encoder(
    over: str,
    dora: bool,
    make: Callable[..., Checkpoint],
    tiny_llama_dir: Path,
    weights: dict[str, np.ndarray],
    rows: np.ndarray,
    tmp_path: Path,
) -> None:
    kind = transformers.AutoModel if over == "encoder" else transformers.AutoModelForCausalLM
    task = None if over == "encoder" else "CAUSAL_LM"
    config = peft.LoraConfig(
        r=8, lora_alpha=32, target_modules=["q_proj", "v_proj", "down_proj"], task_type=task, use_dora=dora
    )
    adapter = write_adapter(kind.from_pretrained(tiny_llama_dir), config, tmp_path / "adapter")
    scores, merged = scores_of(make(adapter))

    reference = peft.PeftModel.from_pretrained(kind.from_pretrained(tiny_llama_dir), adapter)
    wanted = official_scores(reference, tiny_llama_dir, weights, rows)
    assert relative(wanted, scores) < 1e-4
    plain = official_scores(kind.from_pretrained(tiny_llama_dir), tiny_llama_dir, weights, rows)
    assert relative(plain, scores) > 1e-2
    assert merged.report.lora_layers == 6
    content = (adapter / "adapter_model.safetensors").read_bytes()
    assert merged.report.adapter_sha256 == hashlib.sha256(content).hexdigest()
    assert not [name for name, _ in merged.encoder.named_parameters() if "lora" in name]
    assert not [name for name, _ in merged.encoder.named_modules() if "lm_head" in name]


def test_merged_weight_is_the_textbook_sum(
    make: Callable[..., Checkpoint], tiny_llama_dir: Path, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["v_proj"])
    adapter = write_adapter(transformers.AutoModel.from_pretrained(tiny_llama_dir), config, tmp_path / "adapter")
    merged = merge(make(adapter), TEXTS)
    factors = load_file(adapter / "adapter_model.safetensors")
    prefix = "base_model.model.layers.1.self_attn.v_proj"
    base = load_file(tiny_llama_dir / "model.safetensors")["model.layers.1.self_attn.v_proj.weight"]
    wanted = base + 3.0 * factors[f"{prefix}.lora_B.weight"] @ factors[f"{prefix}.lora_A.weight"]
    found = merged.encoder.encoder.layers[1].self_attn.v_proj.weight.numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_user_rows_stay_on_disk_when_no_adapter_touches_them(tiny_checkpoint: Any) -> None:
    checkpoint = tiny_checkpoint("llama")
    merged = merge(checkpoint, TEXTS)
    assert merged.users is checkpoint.users
    assert load_unmerged(checkpoint).users is checkpoint.users


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("mapper", ["identity", "linear", "linear_relu", "mlp", "kernel"])
def test_torch_and_numpy_mappers_agree(family: str, mapper: str, tiny_checkpoint: Any) -> None:
    checkpoint = tiny_checkpoint(family, mapper=mapper)
    encoder = merge(checkpoint, TEXTS).encoder
    prompt = checkpoint.prompt()
    ids, mask = (torch.from_numpy(a) for a in prompt.batch(prompt.tokenize(checkpoint.tokenizer(), TEXTS)))
    with torch.inference_mode():
        x, z = encoder.pooled(ids, mask).numpy(), encoder(ids, mask).numpy()
    np.testing.assert_allclose(checkpoint.mapper.apply(x), z, rtol=1e-5, atol=1e-5)
    assert not encoder.training


COMPOSITE = {
    "mapper": {"target_modules": ["mapper"]},
    "encoder and mapper": {"target_modules": ["q_proj", "v_proj", "mapper"]},
    "user rows": {"target_modules": ["user_embeddings"]},
    "everything": {"target_modules": ["q_proj", "mapper", "user_embeddings"], "use_rslora": True},
    "whole user table": {"target_modules": ["q_proj"], "modules_to_save": ["user_embeddings"]},
    "whole mapper": {"target_modules": ["q_proj"], "modules_to_save": ["mapper"]},
    "some users": {"target_modules": ["q_proj"], "trainable_token_indices": {"user_embeddings": [0, 7, 39]}},
}


@pytest.mark.parametrize("name", COMPOSITE)
def test_adapter_over_the_whole_filterllm(
    name: str,
    make: Callable[..., Checkpoint],
    tiny_llama_dir: Path,
    weights: dict[str, np.ndarray],
    rows: np.ndarray,
    tmp_path: Path,
) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=8, **COMPOSITE[name])
    model = fresh_filterllm(tiny_llama_dir, rows, weights)
    adapter = write_adapter(model, config, tmp_path / "adapter")
    ids, bias = np.arange(USERS) * 3 + 1, np.linspace(-1, 1, USERS, dtype=np.float32)
    checkpoint = make(adapter, ids, bias)
    scores, merged = scores_of(checkpoint)

    reference = peft.PeftModel.from_pretrained(fresh_filterllm(tiny_llama_dir, rows, weights), adapter).eval()
    with torch.inference_mode():
        wanted = np.stack(
            [
                reference(input_ids=(t := tokens(tiny_llama_dir, text)), attention_mask=torch.ones_like(t))[0].numpy()
                for text in TEXTS
            ]
        )
        plain = fresh_filterllm(tiny_llama_dir, rows, weights).eval()(t, torch.ones_like(t))[0].numpy()
    assert relative(wanted + bias, scores) < 1e-4
    assert relative(plain, wanted[-1]) > 1e-2
    np.testing.assert_array_equal(merged.users.ids, ids)
    assert merged.report.max_relative_error < 1e-4

    touches = "user" in name or name == "everything"
    assert (merged.users is checkpoint.users) is not touches
    unmerged = load_unmerged(checkpoint)
    assert relative(wanted, unmerged.item_vectors(TEXTS) @ np.concatenate(list(unmerged.users.chunks())).T) < 1e-4


def test_a_tolerance_that_cannot_be_met_is_a_parity_error(tiny_checkpoint: Any) -> None:
    with pytest.raises(ParityError, match="over 4 probes and 50 users"):
        merge(tiny_checkpoint("llama"), TEXTS, tolerance=0.0)


def test_no_probe_text(tiny_checkpoint: Any) -> None:
    with pytest.raises(UsageError, match="at least one item text"):
        merge(tiny_checkpoint("llama"), [])


def test_bf16_base_and_adapter(tiny_llama_dir: Path, make: Callable[..., Checkpoint], tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"])
    model = transformers.AutoModel.from_pretrained(tiny_llama_dir)
    adapter = write_adapter(model, config, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    save_torch({name: value.to(torch.bfloat16) for name, value in load_torch(file).items()}, file)
    merged = merge(make(adapter), TEXTS)
    assert {p.dtype for p in merged.encoder.parameters()} == {torch.float32}
    rounded = load_torch(file)["base_model.model.layers.0.self_attn.q_proj.lora_A.weight"].float().numpy()
    assert rounded.shape == (4, 32)
    base = load_file(tiny_llama_dir / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    b = load_torch(file)["base_model.model.layers.0.self_attn.q_proj.lora_B.weight"].float().numpy()
    found = merged.encoder.encoder.layers[0].self_attn.q_proj.weight.numpy()
    np.testing.assert_allclose(found, base + 2.0 * b @ rounded, atol=1e-5)


def edit_adapter(adapter: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_an_adapter_of_another_model_is_refused(
    tiny_bert_dir: Path, make: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    config = peft.LoraConfig(target_modules=["query"])
    adapter = write_adapter(transformers.AutoModel.from_pretrained(tiny_bert_dir), config, tmp_path / "adapter")
    with pytest.raises(BundleError, match="does not have") as caught:
        merge(make(adapter), TEXTS)
    assert "encoder.layer.0.attention.self.query" in str(caught.value)
    assert "adapter_model.safetensors" in str(caught.value)


def test_config_and_tensors_of_different_runs_are_refused(
    tiny_llama_dir: Path, make: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    adapter = write_adapter(transformers.AutoModel.from_pretrained(tiny_llama_dir), config, tmp_path / "adapter")
    path = adapter / "adapter_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "target_modules": ["q_proj"]}))
    with pytest.raises(BundleError, match="does not call for") as caught:
        merge(make(adapter), TEXTS)
    assert "v_proj.lora_A.weight" in str(caught.value)
    path.write_text(json.dumps({**content, "r": 8}))
    with pytest.raises(BundleError) as caught:
        merge(make(adapter), TEXTS)
    assert "has the shape [4, 32]; expected [8, 32]" in str(caught.value)


def test_a_text_whose_numbers_overflow_is_named(
    make: Callable[..., Checkpoint], weights: dict[str, np.ndarray]
) -> None:
    huge = replace(
        make(None), mapper=Mapper("linear_relu", {**weights, "weight": np.full((DIM, 32), 3e38, np.float32)})
    )
    with pytest.raises(BundleError, match="not finite for the text 'jazz'"):
        load_unmerged(huge).item_vectors(["jazz"])
    with pytest.raises(BundleError, match="not finite for the text 'jazz'"):
        merge(huge, ["jazz"])
