"""The base model in torch, loaded by Transformers without running any code that comes with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from fllm_export.checkpoint.base import CONFIG_FILE, BaseModel
from fllm_export.errors import BundleError, HardwareError
from fllm_export.system_errors import limit_error

_UNUSED = "pooler."
_COMPUTED = ("position_ids", "token_type_ids", "inv_freq", "attn.bias", "attn.masked_bias")
"""Ends of the names of tensors that older models hold and newer ones compute."""

_MESSAGE_CHARACTERS = 300


def load_base(base: BaseModel, kind: type[Any]) -> nn.Module:
    """Load a HF model in float32; code that comes with a model is never run, and no weight is made up.

    Args:
        base: the model's directory, checked.
        kind: ``transformers.AutoModel`` or ``transformers.AutoModelForCausalLM``.

    Raises:
        BundleError: the architecture is unknown or an encoder-decoder, the weights are quantised, or a weight is
            missing, not used, not finite or has a wrong shape.
        HardwareError: the configuration needs a package that is not installed.
    """
    _check_config(base)
    with _reading(base.path, kind):
        model, report = kind.from_pretrained(
            base.path,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_report(base.path, model, report)
    _check_finite(base.path, model)
    return cast(nn.Module, model)


def module_names(base: BaseModel, kind: type[Any]) -> set[str]:
    """Return the names of all modules and parameters, without loading a weight; errors as of :func:`load_base`."""
    _check_config(base)
    with _reading(base.path, kind), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
        model = kind.from_config(config, trust_remote_code=False)
    return {name for name, _ in [*model.named_modules(), *model.named_parameters()]}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and peft from printing; what matters in their reports is checked and raised instead."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _check_config(base: BaseModel) -> None:
    """Refuse what the configuration says cannot be loaded, or not the same way everywhere."""
    content = base.config
    file, family = base.path / CONFIG_FILE, content.get("model_type")
    if content.get("quantization_config") is not None:
        method = content["quantization_config"]
        method = method.get("quant_method") if isinstance(method, dict) else method
        raise BundleError(
            f"{file} has a quantization_config ({method!r}): the weights of the base model are quantised",
            expected="weights in float32, float16 or bfloat16",
            fix="Name the model before its quantisation as the base, or load it, dequantize() and save_pretrained it",
        )
    if not isinstance(family, str) or family not in transformers.CONFIG_MAPPING:
        needs = ", and needs code of its own (auto_map), which is never run" if "auto_map" in content else ""
        raise BundleError(
            f"{file}: model_type is {family!r}, which transformers {transformers.__version__} does not have{needs}",
            expected="an architecture that transformers has",
            fix="Check config.json, or install a version of transformers that has the architecture",
        )
    # The encoder of a T5 alone is saved as no encoder-decoder, and loaded as one with a decoder of random weights.
    if content.get("is_encoder_decoder") or family in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        raise BundleError(
            f"the base model {base.path} is an encoder-decoder, or the encoder of one ({family})",
            expected="an encoder such as BERT or a decoder such as Llama",
            fix="Train on another base model",
        )


def _check_report(base: Path, model: nn.Module, report: Mapping[str, Any]) -> None:
    """Refuse a model in which Transformers made up a weight or left one out."""
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(_UNUSED))
    if missing:
        raise BundleError(
            f"the weights of the base model {base} lack the tensor {missing[0]!r}",
            expected=f"all tensors of {type(model).__name__}",
            fix="Copy the base model again, or use the one that the checkpoint was trained on",
        )
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise BundleError(
            f"tensor {name!r} of the base model {base} has the shape {list(found)}",
            expected=f"{list(wanted)}, as {CONFIG_FILE} says",
            fix=f"Keep {CONFIG_FILE} and the weights of the same model together",
        )
    own = tuple(f"{name}." for name, _ in model.named_children())
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for name in sorted(report["unexpected_keys"]):
        inner = name.removeprefix(prefix)
        if inner.startswith(own) and not inner.endswith(_COMPUTED) and not inner.startswith(_UNUSED):
            raise BundleError(
                f"tensor {name!r} of the base model {base} has no place in the {type(model).__name__} of its config",
                expected="a configuration that uses all weights of the encoder",
                fix=f"Keep {CONFIG_FILE} and the weights of the same model together",
            )


def _check_finite(base: Path, model: nn.Module) -> None:
    """Refuse a NaN or infinite weight. One pass over the weights in memory; nothing is read again."""
    for name, parameter in model.named_parameters():
        if name.startswith(_UNUSED) or parameter.numel() == 0:
            continue
        # Both ends are finite exactly when all numbers are; NaN reaches both. No copy is made.
        if not torch.stack(torch.aminmax(parameter.detach())).isfinite().all():
            row = int((~parameter.detach().reshape(len(parameter), -1).isfinite().all(1)).nonzero()[0])
            raise BundleError(
                f"tensor {name!r} of the base model {base} has a NaN or infinite number in row {row}",
                expected="finite numbers only",
                fix="Copy the base model again, or go back to weights from before training diverged",
            )


@contextmanager
def _reading(base: Path, kind: type[Any]) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise HardwareError(
            f"the base model {base} needs a package that is not installed: {_line(error)}",
            fix=f"Install it, or take what needs it out of {base / CONFIG_FILE}",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a configuration of untrusted values makes Transformers raise anything
        refused = BundleError(
            f"the base model {base} cannot be loaded ({type(error).__name__}: {_line(error)})",
            expected=f"a model that transformers {transformers.__version__} reads by {kind.__name__} alone",
        )
        raise limit_error(error, base) or refused from error


def _line(error: Exception) -> str:
    """Return the first sentence of a message that may fill a screen."""
    return " ".join(str(error).split())[:_MESSAGE_CHARACTERS]
