"""The model as it was trained: the base model in float32 with its PEFT adapter attached and not folded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import transformers
from torch import nn

from fllm_export.checkpoint.adapter import WEIGHTS_FILE, adapted_module, adapter_tensors, stored_whole
from fllm_export.checkpoint.attached import attach
from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.checkpoint.feature_layers import feature_layers
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.model import FilterLLM, ItemEncoder, make_mapper
from fllm_export.checkpoint.positions import require_rows
from fllm_export.checkpoint.pretrained import load_base, module_names, quiet
from fllm_export.checkpoint.tensors import FloatArray, IdArray
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import BundleError
from fllm_export.prompt import Prompt

Form = Literal["encoder", "causal", "composite"]
"""What an adapter was trained over: the HF encoder, the HF causal LM, or the :class:`FilterLLM`."""

_BATCH = 8
_EMBEDDED_AT_ONCE = 65_536
_UNITS_AT_ONCE = 64
_COMPOSITE = ("item_encoder", "user_embeddings")


class AdaptedModel:
    """The unmerged reference in float32: what every export is compared with.

    Attributes:
        checkpoint: what it was made of.
        encoder: token ids to item vector, the adapter's modules inside.
        peft: the PEFT model around it, or None when there is no adapter.
        causal: the whole causal LM when the users are rows of its output embedding, or when the adapter was
            trained over it; else None.
        composite: the :class:`FilterLLM` when the adapter was trained over it; else None. Its user rows are filled
            only when the adapter touches them.
        embeddings_adapted: whether the adapter touches the user rows, or an embedding of the causal LM.
        rows_adapted: whether the adapter changes the user rows.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.composite: FilterLLM | None = None
        self.causal: nn.Module | None = None
        modules = _adapted_modules(checkpoint.adapter)
        with quiet():
            target = self._build(_form(checkpoint, modules), modules)
            self.peft = None if checkpoint.adapter is None else attach(target, checkpoint.adapter)
        for module in (self.encoder, self.causal, self.composite):
            if module is not None:
                module.eval().requires_grad_(False)
        self.embeddings_adapted = self._touches_embeddings(modules)
        self.rows_adapted = self.embeddings_adapted and (
            self.composite is not None or checkpoint.spec.first_user_row is not None
        )

    def item_vectors(self, texts: Sequence[str]) -> FloatArray:
        """Return z, float32 [items, d].

        Raises:
            BundleError: the model gives a text, which is named, a vector that is not finite.
        """
        prompt = self.checkpoint.prompt()
        z = encode(self.encoder, prompt, prompt.tokenize(self.checkpoint.tokenizer(), texts))
        require_finite(z, texts)
        return z

    def base_vectors(self, texts: Sequence[str]) -> FloatArray:
        """Return x, the features of the base model before the mapper with the adapter switched off, float32 [items, h].

        Raises:
            BundleError: the base model gives a text, which is named, a vector that is not finite.
        """
        prompt = self.checkpoint.prompt()
        with nullcontext() if self.peft is None else cast(Any, self.peft).disable_adapter():
            x = encode(self.encoder.pooled, prompt, prompt.tokenize(self.checkpoint.tokenizer(), texts))
        require_finite(x, texts)
        return x

    @property
    def users(self) -> UserRows:
        """The user rows as the adapter makes them; those that it does not touch stay on disk."""
        stored = self.checkpoint.users
        if not self.rows_adapted:
            return stored
        if self.composite is not None:
            return UserRows.from_array(self._embedded(np.arange(stored.rows)), stored.ids, stored.bias)
        head = cast(nn.Module, cast(Any, self.causal).get_output_embeddings())
        window = self._window()
        with torch.inference_mode():
            # The head is affine, whatever wraps it: its rows are what it makes of the unit vectors.
            bias = head(torch.zeros(1, stored.dim))[:, window]
            units = [torch.eye(stored.dim)[i : i + _UNITS_AT_ONCE] for i in range(0, stored.dim, _UNITS_AT_ONCE)]
            rows = torch.cat([head(unit)[:, window] - bias for unit in units])
        return UserRows.from_array(
            rows.T.contiguous().numpy(), stored.ids, bias[0].numpy() if stored.bias is not None else None
        )

    def scores(self, ids: Sequence[Sequence[int]], users: IdArray, rows: FloatArray) -> FloatArray:
        """Return the scores of the given users for tokenised prompts, float32 [prompts, n].

        Args:
            ids: the tokens of each prompt.
            users: the numbers of the users, int64 [n].
            rows: their rows as the checkpoint stores them, float32 [n, d]; used when no adapter touches them.
        """
        if self.checkpoint.spec.first_user_row is not None:
            return self._causal_scores(ids, users)
        z = encode(self.encoder, self.checkpoint.prompt(), ids)
        if self.rows_adapted:
            rows = self._embedded(users)
        bias = self.checkpoint.users.bias
        return z @ rows.T + (np.float32(0) if bias is None else bias[users])

    def _causal_scores(self, ids: Sequence[Sequence[int]], users: IdArray) -> FloatArray:
        # The causal LM's own logits, each prompt alone and without padding: nothing of the export is in them,
        # so that a scale or a cap on the logits, which no user row can express, is noticed.
        causal = cast(nn.Module, self.causal)
        extra = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(causal.forward).parameters else {}
        chosen = torch.from_numpy(users + cast(int, self.checkpoint.spec.first_user_row))
        with torch.inference_mode():
            logits = [causal(input_ids=torch.tensor([row]), use_cache=False, **extra).logits[0, -1] for row in ids]
            return cast(FloatArray, torch.stack([row.index_select(0, chosen) for row in logits]).float().numpy())

    def _embedded(self, users: IdArray) -> FloatArray:
        rows = cast(FilterLLM, self.composite).user_embeddings
        with torch.inference_mode():
            chosen = torch.from_numpy(users)
            step = _EMBEDDED_AT_ONCE
            parts = [rows(chosen[i : i + step]) for i in range(0, len(users), step)]
            return cast(FloatArray, torch.cat(parts).numpy())

    def _window(self) -> slice:
        first = cast(int, self.checkpoint.spec.first_user_row)
        return slice(first, first + self.checkpoint.spec.users)

    def _build(self, form: Form, modules: set[str]) -> nn.Module:
        """Load the weights, set encoder, causal and composite, and return the module that the adapter was made for."""
        base, spec = self.checkpoint.base_model, self.checkpoint.spec
        if form == "causal" or spec.first_user_row is not None:
            self.causal = load_base(base, transformers.AutoModelForCausalLM)
            _resize(self.causal, self.checkpoint.adapter, modules)
            inner = cast(nn.Module, self.causal.base_model)
        else:
            inner = load_base(base, transformers.AutoModel)
        features = feature_layers(self.checkpoint.features)
        self.encoder = ItemEncoder(inner, spec.pooling, torch_mapper(self.checkpoint.mapper), features)
        self.encoder.positions.require(spec.max_length, base.path)
        require_rows(inner, base)
        if form == "composite":
            touched = any(name.startswith("user_embeddings") for name in modules)
            self.composite = _composite(self.encoder, self.checkpoint.users, filled=touched)
            return self.composite
        return cast(nn.Module, self.causal) if form == "causal" else inner

    def _touches_embeddings(self, modules: set[str]) -> bool:
        if self.composite is not None:
            return any(name.startswith("user_embeddings") for name in modules)
        if self.causal is None:
            return False
        # Either table counts: when they are tied they share what an adapter adds. The names' ends are compared,
        # because an adapter over the encoder alone has no prefix before them.
        model = cast(Any, self.causal)
        tables = (model.get_input_embeddings(), model.get_output_embeddings())
        ends = {name.split(".")[-1] for name in modules}
        return any(name.split(".")[-1] in ends for name, module in model.named_modules() if module in tables)


def load_unmerged(checkpoint: Checkpoint) -> AdaptedModel:
    """Return the unmerged float32 model with ``item_vectors(texts)`` and ``users``.

    Raises:
        BundleError: weights of the base model or of the adapter are missing, damaged or do not fit.
    """
    return AdaptedModel(checkpoint)


def require_finite(vectors: FloatArray, texts: Sequence[str]) -> None:
    """Check what a checkpoint computed for texts, float32 [texts, n].

    Raises:
        BundleError: a text, which is named, has a number that is not finite.
    """
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        raise BundleError(
            f"the checkpoint computes numbers that are not finite for the text {texts[int(np.argmin(finite))]!r}",
            expected="finite numbers for every text",
            fix="Check the weights of the checkpoint: numbers overflow on the way through the encoder",
        )


def encode(
    encoder: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], prompt: Prompt, ids: Sequence[Sequence[int]]
) -> FloatArray:
    """Return what ``encoder`` makes of tokenised prompts, padded in batches as ``prompt`` says, float32 [items, d].

    Args:
        encoder: an :class:`ItemEncoder` for z, its ``pooled`` for x; takes token ids and mask, int64 [B, L].
        prompt: the template and its padding rules.
        ids: the tokens of each prompt.
    """
    with torch.inference_mode():
        parts = []
        for i in range(0, len(ids), _BATCH):
            tokens, mask = prompt.batch(ids[i : i + _BATCH])
            parts.append(encoder(torch.from_numpy(tokens), torch.from_numpy(mask)))
        return cast(FloatArray, torch.cat(parts).float().numpy())


def _adapted_modules(adapter: Path | None) -> set[str]:
    return set() if adapter is None else {adapted_module(name) for name in adapter_tensors(adapter)}


def _form(checkpoint: Checkpoint, modules: set[str]) -> Form:
    if any(name.split(".")[0] in _COMPOSITE for name in modules):
        if checkpoint.spec.first_user_row is not None:
            raise BundleError(
                f"the adapter {checkpoint.adapter} is over a FilterLLM and first_user_row is given",
                expected="an adapter over the causal LM, whose rows are the users",
            )
        return "composite"
    if not modules or modules <= module_names(checkpoint.base_model, transformers.AutoModel):
        return "encoder"
    known = module_names(checkpoint.base_model, transformers.AutoModelForCausalLM)
    if not modules <= known:
        raise BundleError(
            f"{cast(Path, checkpoint.adapter) / WEIGHTS_FILE} adapts the module {min(modules - known)!r}, which the "
            f"base model {checkpoint.base} does not have",
            expected="modules of its encoder, of its causal LM, or of FilterLLM",
            fix="Use the base model that the adapter was trained on",
        )
    return "causal"


def _resize(causal: nn.Module, adapter: Path | None, modules: set[str]) -> None:
    """Make room for rows that exist only in the adapter, as PEFT saves them when a vocabulary was extended."""
    model = cast(Any, causal)
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {name for name, module in causal.named_modules() if module in tables}
    stored = [stored_whole(adapter, f"{name}.weight") for name in names & modules] if adapter is not None else []
    rows = max((tensor.shape[0] for tensor in stored if tensor is not None), default=0)
    if rows > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)


def torch_mapper(mapper: Mapper) -> nn.Module:
    """Return a mapper as a torch module with its weights; errors of shape are the mapper's own."""
    module = make_mapper(mapper.kind, mapper.hidden or 0, mapper.dim or 0, mapper.inner)
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in mapper.weights.items()})
    return module


def _composite(encoder: ItemEncoder, users: UserRows, *, filled: bool) -> FilterLLM:
    # Rows that no adapter touches are never brought into torch: one row stands for them.
    model = FilterLLM(encoder, users.rows if filled else 1, users.dim)
    first = 0
    for chunk in users.chunks() if filled else ():
        model.user_embeddings.weight.data[first : first + len(chunk)] = torch.from_numpy(chunk)
        first += len(chunk)
    return model
