"""Folding a PEFT adapter into dense weights, and the proof that nothing was lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from peft import PeftModel
from torch import nn

from fllm_export.checkpoint.adapted import AdaptedModel, encode, load_unmerged, require_finite, torch_mapper
from fllm_export.checkpoint.adapter import WEIGHTS_FILE, adapted_module, adapter_tensors
from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.model import ItemEncoder, MapperKind
from fllm_export.checkpoint.pretrained import quiet
from fllm_export.checkpoint.tensors import FloatArray
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import BundleError, ParityError, UsageError
from fllm_export.files import sha256_file
from fllm_export.system_errors import limit_error

__all__ = ["MergeReport", "Merged", "load_unmerged", "merge"]

MOST_ROWS_COMPARED = 65_536

_LEFTOVERS = ("lora_", "modules_to_save", "token_adapter", "trainable_tokens", "base_layer", "original_module")


@dataclass(frozen=True)
class MergeReport:
    """What was folded, and how far the folded model is from the unfolded one.

    Attributes:
        adapter_sha256: SHA-256 of ``adapter_model.safetensors`` in hexadecimal; None without an adapter.
        lora_layers: number of modules that the adapter changes.
        max_relative_error: max |merged - unmerged| / max |unmerged| over the scores of all probes and users compared.
        probes: number of probe texts.
    """

    adapter_sha256: str | None
    lora_layers: int
    max_relative_error: float
    probes: int


@dataclass(frozen=True)
class Merged:
    """A checkpoint in dense weights.

    Attributes:
        encoder: token ids to item vector, float32, in evaluation mode, no LM head.
        users: the dense user rows; those that no adapter touches are still read from the checkpoint's files.
        report: what was folded and how well.
        mapper: kind of the encoder's mapper.
    """

    encoder: ItemEncoder
    users: UserRows
    report: MergeReport
    mapper: MapperKind

    def then(self, matrix: npt.NDArray[np.floating]) -> Merged:
        """Return the model whose item vector is ``matrix`` z, with the matrix [m, d] folded into the mapper.

        The user rows stay as they are: :class:`fllm_export.calibration.transform.Transform` maps them when they are
        written.

        Raises:
            UsageError: the matrix does not take the mapper's output.
        """
        old = self.encoder
        mapper = _dense_mapper(old, self.mapper).then(matrix)
        encoder = ItemEncoder(old.encoder, old.pooling, torch_mapper(mapper), old.features)
        encoder.eval().requires_grad_(False)
        return replace(self, encoder=encoder, mapper=mapper.kind)


def merge(checkpoint: Checkpoint, probe_texts: Sequence[str], *, tolerance: float = 1e-4) -> Merged:
    """Fold the adapter into the weights and compare the scores of both models on probe texts.

    The comparison is over all users, or over 65,536 evenly spaced ones when there are more.

    Args:
        checkpoint: what training handed over.
        probe_texts: item texts, at least one.
        tolerance: largest accepted error relative to the largest score.

    Raises:
        BundleError: weights are missing or damaged, or cannot be folded.
        ParityError: merged and unmerged scores differ by more than ``tolerance``.
        UsageError: no probe text.
    """
    if not probe_texts:
        raise UsageError("there is no probe text", expected="at least one item text to compare the models on")
    model = load_unmerged(checkpoint)
    prompt = checkpoint.prompt()
    ids = prompt.tokenize(checkpoint.tokenizer(), probe_texts)
    chosen, stored = checkpoint.users.sample(MOST_ROWS_COMPARED)
    unmerged = model.scores(ids, chosen, stored)
    users = _fold(model)  # names the adapter where it overflows
    # A kernel's bound on its exponents must also hold for what the adapter made of its layers.
    _dense_mapper(model.encoder, checkpoint.spec.mapper, f"the mapper merged with the adapter {checkpoint.adapter}")
    require_finite(unmerged, probe_texts)
    rows = users.sample(MOST_ROWS_COMPARED)[1] if model.rows_adapted else stored
    merged = encode(model.encoder, prompt, ids) @ rows.T
    if users.bias is not None:
        merged += users.bias[chosen]
    error = _relative_error(unmerged, merged)
    # Written so that NaN fails.
    if not error <= tolerance:
        raise ParityError(
            f"merged and unmerged scores of {checkpoint.adapter or checkpoint.base} differ by {error:.3g} of the "
            f"largest score, over {len(ids)} probes and {len(chosen)} users",
            expected=f"at most {tolerance:g}",
            fix="Check that the adapter belongs to the base model, and that the model does not scale or cap its logits",
        )
    sha256, layers = _identity(checkpoint.adapter)
    return Merged(model.encoder, users, MergeReport(sha256, layers, error, len(ids)), checkpoint.spec.mapper)


def _dense_mapper(encoder: ItemEncoder, kind: MapperKind, source: str = "the merged mapper") -> Mapper:
    return Mapper(kind, {name: value.detach().numpy() for name, value in encoder.mapper.state_dict().items()}, source)


def _fold(model: AdaptedModel) -> UserRows:
    """Fold the adapter in place, drop what the export does not need, and return the dense user rows."""
    checkpoint = model.checkpoint
    if model.peft is not None:
        if model.causal is not None and model.embeddings_adapted:
            _untie(model.causal)
        _merge_and_unload(model.peft, cast(Path, checkpoint.adapter))
    users = checkpoint.users
    if model.rows_adapted:
        users = UserRows.from_array(_dense_rows(model), users.ids, _dense_bias(model))
    if checkpoint.spec.first_user_row is not None:
        _trim_input_embedding(model)
    model.peft = model.causal = model.composite = None
    return users


def _merge_and_unload(peft: PeftModel, adapter: Path) -> None:
    try:
        with quiet():
            dense = peft.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        refused = BundleError(
            f"the adapter {adapter} cannot be folded: {error}",
            expected="an adapter that PEFT merges into dense weights",
        )
        raise limit_error(error, adapter) or refused from error
    left = [name for name in dense.state_dict() if any(part in name for part in _LEFTOVERS)]
    if left:
        raise BundleError(
            f"{len(left)} tensors of the adapter {adapter} are not folded, among them {left[0]!r}",
            expected="dense weights only",
        )


def _untie(model: nn.Module) -> None:
    """Give every module its own copy of a parameter that several share.

    LoRA on one of two tied embeddings would otherwise be added to both when it is folded.
    """
    seen: set[int] = set()
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in seen:
                copy = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                module.register_parameter(name, copy)
            seen.add(id(parameter))


def _dense_rows(model: AdaptedModel) -> FloatArray:
    if model.composite is not None:
        return cast(FloatArray, model.composite.user_embeddings.weight.detach().numpy())
    head = cast(Any, model.causal).get_output_embeddings()
    return cast(FloatArray, head.weight.detach()[_window(model)].clone().numpy())


def _dense_bias(model: AdaptedModel) -> FloatArray | None:
    if model.composite is not None or model.checkpoint.users.bias is None:
        return model.checkpoint.users.bias
    head = cast(Any, model.causal).get_output_embeddings()
    return cast(FloatArray, head.bias.detach()[_window(model)].clone().numpy())


def _window(model: AdaptedModel) -> slice:
    first = cast(int, model.checkpoint.spec.first_user_row)
    return slice(first, first + model.checkpoint.spec.users)


def _trim_input_embedding(model: AdaptedModel) -> None:
    """Drop input rows of an extended vocabulary that no token of the tokenizer reaches: users are outputs only."""
    checkpoint = model.checkpoint
    table = cast(Any, model.encoder.encoder).get_input_embeddings()
    tokens = checkpoint.tokenizer().get_vocab(with_added_tokens=True).values()
    highest = max([*tokens, checkpoint.prompt().pad_id, table.padding_idx or 0])
    if highest + 1 < table.weight.shape[0]:
        table.weight = nn.Parameter(table.weight.detach()[: highest + 1].clone(), requires_grad=False)
        table.num_embeddings = highest + 1


def _relative_error(reference: FloatArray, found: FloatArray) -> float:
    largest = float(np.abs(reference).max())
    difference = float(np.abs(reference - found).max())
    return difference / largest if largest > 0 else (0.0 if difference == 0 else float("inf"))


def _identity(adapter: Path | None) -> tuple[str | None, int]:
    if adapter is None:
        return None, 0
    return sha256_file(adapter / WEIGHTS_FILE), len({adapted_module(name) for name in adapter_tensors(adapter)})
