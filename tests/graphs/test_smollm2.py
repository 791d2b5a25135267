"""A real decoder all the way: LoRA is trained a few steps, merged and exported, and ONNX gives torch's numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.merge import merge
from fllm_export.checkpoint.model import ItemEncoder, make_mapper
from fllm_export.checkpoint.spec import CheckpointSpec
from fllm_export.checkpoint.users import UserRows
from fllm_export.graphs.encoder import export_encoder
from fllm_export.graphs.parity import compare_encoder
from fllm_export.training.encoders import EncoderChoice, choose_encoder, lora_targets
from fllm_export.training.lora import add_lora, load_encoder, save_adapter
from fllm_export.training.recipe import SoftmaxRecipe

TEXTS = (
    "Toy Story (1995), animation and comedy for children",
    "Heat (1995), action and crime, three hours of it and no dull minute in the middle of Los Angeles",
    "Gene expression and network motifs in yeast",
    "Jazz",
)
USERS, DIM = 200, 64


def train_few_steps(choice: EncoderChoice, recipe: SoftmaxRecipe, folder: Path) -> Checkpoint:
    """Train LoRA, mapper and user rows for a few steps on made-up pairs and return the checkpoint, saved."""
    torch.manual_seed(recipe.seed)
    base, hidden = load_encoder(choice.path)
    adapted = add_lora(base, recipe, lora_targets(base))
    model: Any = ItemEncoder(adapted, choice.pooling, make_mapper("linear_relu", hidden, DIM))
    rows = torch.nn.Embedding(USERS, DIM)
    spec = CheckpointSpec(
        base_model=str(choice.path),
        template=choice.template,
        pooling=choice.pooling,
        max_length=64,
        padding_side=choice.padding_side,
        mapper="linear_relu",
        dim=DIM,
        users=USERS,
    )
    empty = UserRows.from_array(np.zeros((USERS, DIM), np.float32))
    weights = {"weight": np.zeros((DIM, hidden), np.float32), "bias": np.zeros(DIM, np.float32)}
    bare = Checkpoint(spec=spec, base=choice.path, adapter=None, mapper=Mapper("linear_relu", weights), users=empty)
    prompt = bare.prompt()
    ids, mask = (torch.from_numpy(a) for a in prompt.batch(prompt.tokenize(bare.tokenizer(), TEXTS)))
    trained = [p for p in (*model.parameters(), *rows.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    losses = []
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(model(ids, mask) @ rows.weight.T, torch.tensor([3, 17, 99, 150]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    mapper = {name: p.detach().numpy() for name, p in model.mapper.named_parameters()}
    full = replace(
        bare,
        adapter=save_adapter(model.encoder, folder / "adapter"),
        mapper=Mapper("linear_relu", mapper),
        users=UserRows.from_array(rows.weight.detach().numpy()),
    )
    full.save(folder / "checkpoint")
    return Checkpoint.load(folder / "checkpoint")


@pytest.mark.slow
def test_onnx_equals_torch_on_both_paddings(smollm2_gguf: Path, tmp_path: Path) -> None:
    assert smollm2_gguf.is_file()
    choice = choose_encoder("smollm2", tmp_path / "workspace")
    checkpoint = train_few_steps(choice, SoftmaxRecipe(lora_dropout=0.0), tmp_path)
    merged = merge(checkpoint, TEXTS)
    assert merged.report.lora_layers > 0
    prompt = checkpoint.prompt()
    ids = prompt.tokenize(checkpoint.tokenizer(), TEXTS)
    left, right = replace(prompt, padding_side="left"), replace(prompt, padding_side="right")
    export_encoder(merged.encoder, tmp_path / "model.onnx", example=left.batch(ids[:2]))
    batches = [left.batch(ids), right.batch(ids), left.batch(ids[1:3]), right.batch(ids[3:])]
    parity = compare_encoder(tmp_path / "model.onnx", merged.encoder, batches)
    parity.require(1e-3)
    assert parity.max_abs < 1e-3
    with torch.no_grad():
        z = [merged.encoder(*(torch.from_numpy(a) for a in batch)) for batch in batches[:2]]
    assert z[0].abs().max() > 0
    torch.testing.assert_close(z[0], z[1], rtol=1e-3, atol=1e-4)
