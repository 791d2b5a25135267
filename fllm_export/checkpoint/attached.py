"""A PEFT adapter around the base model in torch, every tensor accounted for."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from fllm_export.checkpoint.adapter import CONFIG_FILE, WEIGHTS_FILE, adapter_tensors
from fllm_export.errors import BundleError


def attach(model: nn.Module, folder: Path) -> PeftModel:
    """Wrap ``model`` in place with the adapter of a directory, every tensor accounted for.

    Raises:
        BundleError: a tensor is missing, unknown, not finite, or has a wrong shape, or the config does not fit.
    """
    try:
        config = PeftConfig.from_pretrained(str(folder))
        # The task decides only about wrappers for generation and classification; folding needs none.
        config.task_type, config.inference_mode = None, True
        peft = PeftModel(model, config)
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(
            f"{folder / CONFIG_FILE} does not fit {type(model).__name__}: {error}",
            expected="the config that PEFT wrote for this base model",
        ) from error
    needed = get_peft_model_state_dict(peft, save_embedding_layers=False)
    known = {**get_peft_model_state_dict(peft, save_embedding_layers=True), **needed}
    stored = adapter_tensors(folder)
    missing, unknown = sorted(set(needed) - set(stored)), sorted(set(stored) - set(known))
    if missing:
        raise BundleError(
            f"{folder / WEIGHTS_FILE} lacks the tensor {missing[0]!r}",
            expected=f"the {len(needed)} tensors that {CONFIG_FILE} calls for",
        )
    if unknown:
        raise BundleError(
            f"{folder / WEIGHTS_FILE} has the tensor {unknown[0]!r}, which {CONFIG_FILE} does not call for",
            expected=f"the {len(needed)} tensors that {CONFIG_FILE} calls for",
            fix="Keep adapter_config.json and adapter_model.safetensors of the same training run together",
        )
    for name, tensor in stored.items():
        tensor.expect(tuple(known[name].shape))
    set_peft_model_state_dict(peft, {name: torch.from_numpy(tensor.read()) for name, tensor in stored.items()})
    return peft
