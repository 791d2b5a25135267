"""A PEFT adapter around the base model in torch, every tensor accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import peft
import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model_state_dict, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn

from fllm_export.checkpoint.adapter import CONFIG_FILE, WEIGHTS_FILE, adapter_tensors
from fllm_export.errors import BundleError, HardwareError
from fllm_export.strict_json import read_object
from fllm_export.system_errors import limit_error

_STARTS_OF_FACTORS = ("gaussian", "orthogonal", "eva", "lora_ga")
"""Values of init_lora_weights that choose the first factors and leave the base model alone."""


def attach(model: nn.Module, folder: Path) -> PeftModel:
    """Wrap ``model`` in place with the adapter of a directory, every tensor accounted for.

    Raises:
        BundleError: a tensor is missing, unknown, not finite, or has a wrong shape, or the config does not fit or would
            change the base model in a way that need not be the one of training.
        HardwareError: the config needs a package that is not installed.
    """
    _check_config(folder)
    with _reading(folder, model):
        config = PeftConfig.from_pretrained(str(folder))
        # The task decides only about wrappers for generation and classification; folding needs none.
        config.task_type, config.inference_mode = None, True
        wrapped = PeftModel(model, config)
    needed = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    known = {**get_peft_model_state_dict(wrapped, save_embedding_layers=True), **needed}
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
    set_peft_model_state_dict(wrapped, {name: torch.from_numpy(tensor.read()) for name, tensor in stored.items()})
    return wrapped


def _check_config(folder: Path) -> None:
    """Refuse what PEFT would pass over, and what it would do to the base model on its own."""
    content = read_object(folder / CONFIG_FILE)
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(content["peft_type"])]
    # PEFT writes all fields, so that an unknown one that is off is that of a newer version and asks for nothing.
    known = {field.name for field in fields(kind)} | {"peft_version"}
    unknown = sorted(name for name, value in content.items() if name not in known and value)
    if unknown:
        raise BundleError(
            f"{folder / CONFIG_FILE} has the key {unknown[0]!r}, which peft {peft.__version__} does not know",
            expected=f"the fields of {kind.__name__}",
            fix="Install the version of peft that the adapter was trained with",
        )
    start = content.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _STARTS_OF_FACTORS:
        raise BundleError(
            f"{folder / CONFIG_FILE}: init_lora_weights is {start!r}, by which weights of the base model are computed "
            "again whenever the adapter is loaded, and need not be those of training",
            expected="an adapter over the base model as it is stored",
            fix="Save it as LoRA: save_pretrained(path_initial_model_for_weight_conversion=...)",
        )


@contextmanager
def _reading(folder: Path, model: nn.Module) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise HardwareError(f"the adapter {folder} needs a package that is not installed: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a configuration of untrusted values makes PEFT raise anything
        refused = BundleError(
            f"{folder / CONFIG_FILE} does not fit {type(model).__name__}: {error}",
            expected="the config that PEFT wrote for this base model",
        )
        raise limit_error(error, folder) or refused from error
