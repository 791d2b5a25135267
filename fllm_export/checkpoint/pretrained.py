"""The base model in torch, loaded by Transformers without running any code that comes with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn

from fllm_export.errors import BundleError
from fllm_export.system_errors import limit_error

_UNUSED = "pooler."


def load_base(base: Path, kind: type[Any]) -> nn.Module:
    """Load a HF model in float32; code that comes with a model is never run.

    Args:
        base: directory of the model.
        kind: ``transformers.AutoModel`` or ``transformers.AutoModelForCausalLM``.

    Raises:
        BundleError: the architecture is unknown, or a weight is missing or has a wrong shape.
    """
    with _reading(base, kind):
        model, report = kind.from_pretrained(
            base,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(_UNUSED))
    if missing:
        raise BundleError(
            f"the weights of the base model {base} lack the tensor {missing[0]!r}",
            expected=f"all tensors of {type(model).__name__}",
            fix="Copy the base model again, or use the one that the checkpoint was trained on",
        )
    return cast(nn.Module, model)


def module_names(base: Path, kind: type[Any]) -> set[str]:
    """Return the names of all modules and parameters, without loading a weight."""
    with _reading(base, kind), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
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


@contextmanager
def _reading(base: Path, kind: type[Any]) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        refused = BundleError(
            f"the base model {base} cannot be loaded: {error}",
            expected=f"a model that transformers {transformers.__version__} reads by {kind.__name__} alone",
        )
        raise limit_error(error, base) or refused from error
