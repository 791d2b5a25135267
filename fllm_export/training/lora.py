"""The frozen encoder and its LoRA adapter (PEFT)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModel

from fllm_export.checkpoint.base import BaseModel
from fllm_export.checkpoint.checkpoint import BASE_FOLDER
from fllm_export.checkpoint.positions import require_rows
from fllm_export.checkpoint.pretrained import load_base, quiet
from fllm_export.training.recipe import Recipe


def load_encoder(path: Path) -> tuple[nn.Module, int]:
    """Return the Hugging Face encoder in ``path``, float32, every parameter frozen; and its hidden size h.

    Raises:
        BundleError: as of :func:`load_base`, or a token of the tokenizer has no row in the input embedding.
        HardwareError: the configuration needs a package that is not installed.
    """
    base = BaseModel.check(path)
    with quiet():
        model = load_base(base, AutoModel)
    require_rows(model, base)
    model.requires_grad_(False)
    config: Any = model.config
    return model.eval(), int(config.hidden_size)


def add_lora(encoder: nn.Module, recipe: Recipe, targets: list[str]) -> nn.Module:
    """Wrap the encoder with trainable LoRA on some of its linear layers, by name; the second factors begin at zero."""
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
    )
    with quiet():
        adapted: nn.Module = get_peft_model(encoder, config)
    return adapted


def lora_training(model: nn.Module) -> None:
    """Switch LoRA's own dropout on and everything else to evaluation.

    The frozen encoder's dropout would only add noise: its weights cannot learn to live with it.
    """
    model.eval()
    for name, module in model.named_modules():
        if ".lora_dropout." in name:
            module.train()


def save_adapter(model: nn.Module, folder: Path) -> Path:
    """Write the adapter to ``folder`` and return it; the base model is named by its place in the checkpoint."""
    assert isinstance(model, PeftModel)
    for config in model.peft_config.values():
        config.base_model_name_or_path = BASE_FOLDER
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder
