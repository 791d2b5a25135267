"""Adapters whose every weight counts, and how far two results are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.merge import merge  # noqa: E402

TEXTS = ["jazz trumpet solos", "a paper on protein folding and yeast", "shoe", "the quick brown fox " * 8]
TEMPLATE = "An item has the following content: {text} Who would like it?"
USERS, DIM = 40, 16
VOCABULARY = 400


def perturb(model: Any) -> None:
    """Give every trainable tensor a random value, so that nothing that is lost goes unnoticed."""
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)


def write_adapter(model: Any, config: Any, path: Path) -> Path:
    torch.manual_seed(3)
    wrapped = peft.get_peft_model(model, config)
    perturb(wrapped)
    wrapped.save_pretrained(str(path))
    return path


def tokens(base: Path, text: str) -> Any:
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    return torch.tensor([tokenizer.encode(TEMPLATE.replace("{text}", text)).ids])


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(a).max())


def scores_of(checkpoint: Checkpoint) -> tuple[np.ndarray, Any]:
    merged = merge(checkpoint, TEXTS)
    prompt = checkpoint.prompt()
    ids, mask = prompt.batch(prompt.tokenize(checkpoint.tokenizer(), TEXTS))
    with torch.inference_mode():
        z = merged.encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    scores = z @ np.concatenate(list(merged.users.chunks())).T
    return scores + (0 if merged.users.bias is None else merged.users.bias), merged
