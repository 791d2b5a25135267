"""The same paths on pretrained weights: a BERT encoder, and (slow) a Llama decoder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.mapper import Mapper  # noqa: E402
from fllm_export.checkpoint.merge import merge  # noqa: E402
from fllm_export.checkpoint.spec import CheckpointSpec  # noqa: E402
from fllm_export.checkpoint.users import UserRows  # noqa: E402

TEXTS = ["Collaborative filtering with implicit feedback", "A gentle introduction to jazz", "yeast"]


def test_minilm_with_lora(minilm_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], init_lora_weights=False)
    model = peft.get_peft_model(transformers.AutoModel.from_pretrained(minilm_dir), config)
    model.save_pretrained(str(tmp_path))
    spec = CheckpointSpec(str(minilm_dir), "{text}", "mean", 256, "right", "identity", 384, 20)
    rows = UserRows.from_array(np.random.default_rng(0).standard_normal((20, 384)).astype(np.float32))
    checkpoint = Checkpoint(spec, minilm_dir, tmp_path, Mapper("identity"), rows)
    merged = merge(checkpoint, TEXTS)
    assert merged.report.lora_layers == 12
    assert merged.report.max_relative_error < 1e-5

    prompt = checkpoint.prompt()
    ids, mask = prompt.batch(prompt.tokenize(checkpoint.tokenizer(), TEXTS))
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_dir)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    np.testing.assert_array_equal(inputs["input_ids"].numpy(), ids)
    with torch.inference_mode():
        states = model.eval()(**inputs).last_hidden_state
        weights = inputs["attention_mask"].unsqueeze(-1)
        wanted = (states * weights).sum(1) / weights.sum(1)
        found = merged.encoder(torch.from_numpy(ids), torch.from_numpy(mask))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_smollm2_as_official_files(smollm2_gguf: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    source: dict[str, Any] = {"gguf_file": smollm2_gguf.name}
    quantised = transformers.AutoModelForCausalLM.from_pretrained(smollm2_gguf.parent, **source)
    config = copy.deepcopy(quantised.config)
    # A model read from GGUF counts as quantised and cannot be saved as it is.
    del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(base)
    transformers.AutoTokenizer.from_pretrained(smollm2_gguf.parent, **source).save_pretrained(base)

    torch.manual_seed(0)
    lora = peft.LoraConfig(r=8, lora_alpha=32, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, lora)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter) * 0.02
    wrapped.save_pretrained(str(tmp_path / "run"))
    mapper, users = torch.nn.Linear(576, 576), torch.nn.Embedding(1000, 576)
    torch.save(
        {"mapper": mapper.state_dict(), "user_embeddings": users.state_dict()}, tmp_path / "run" / "custom_weights.pt"
    )
    template = "Which readers would the paper {text} attract?"
    checkpoint = Checkpoint.from_filterllm(
        base, tmp_path / "run", tmp_path / "run" / "custom_weights.pt", template=template
    )
    merged = merge(checkpoint, TEXTS)
    assert merged.report.lora_layers == 60
    prompt = checkpoint.prompt()
    ids, mask = (torch.from_numpy(a) for a in prompt.batch(prompt.tokenize(checkpoint.tokenizer(), TEXTS)))
    with torch.inference_mode():
        states = wrapped.eval()(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1][:, -1]
        wanted = (torch.relu(mapper(states)) @ users.weight.T).numpy()
        found = merged.encoder(ids, mask).numpy() @ np.concatenate(list(merged.users.chunks())).T
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
