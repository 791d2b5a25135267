"""The positions that an encoder gives its tokens: they depend on a text alone, whatever shares its batch."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fllm_export.checkpoint.base import TOKENIZER_FILE, BaseModel
from fllm_export.errors import BundleError

_ROPE_FIELDS = ("rope_parameters", "rope_scaling")


@dataclass(frozen=True)
class Positions:
    """How an encoder counts the tokens of a text.

    Attributes:
        given: whether the encoder takes ``position_ids``. Where it does not, it counts from the first column of the
            batch, padding included, or needs no absolute positions.
        uncounted: for encoders of the RoBERTa kind, the token that they do not count. It has its own number as its
            position, and the first counted token has the next one. None: counting begins at 0.
        most: tokens of a text at most, or None.
    """

    given: bool
    uncounted: int | None
    most: int | None

    @classmethod
    def of(cls, encoder: nn.Module) -> Positions:
        """Find out how a Hugging Face encoder counts, whether PEFT wraps it or not."""
        uncounted = _uncounted(encoder)
        most = _most(getattr(_plain(encoder), "config", None), uncounted)
        return cls("position_ids" in argument_names(encoder), uncounted, most)

    def ids(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return ``position_ids``, int64 [B, L], of token ids and mask, int64 [B, L]."""
        if self.uncounted is None:
            return (attention_mask.cumsum(1) - 1).clamp(min=0)
        counted = attention_mask * (input_ids != self.uncounted)
        return counted.cumsum(1) * counted + self.uncounted

    def require(self, max_length: int, base: Path) -> None:
        """Check that texts of ``max_length`` tokens have positions.

        Raises:
            BundleError: they have not; both numbers are named.
        """
        if self.most is not None and max_length > self.most:
            raise BundleError(
                f"max_length is {max_length} and the base model {base} has positions for {self.most} tokens",
                expected=f"a max_length of at most {self.most}",
                fix="Lower max_length, in filterllm.json or where the checkpoint is made",
            )


def argument_names(encoder: nn.Module) -> frozenset[str]:
    """Return the names of what a Hugging Face encoder takes, whether PEFT wraps it or not."""
    return frozenset(inspect.signature(_plain(encoder).forward).parameters)


def require_rows(encoder: nn.Module, model: BaseModel) -> None:
    """Check that every token of the tokenizer has a row in the encoder's input embedding.

    Raises:
        BundleError: a token has none; both numbers are named.
    """
    rows = int(encoder.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    tokens = {number: token for token, number in model.tokenizer().get_vocab(with_added_tokens=True).items()}
    highest = max([*tokens, model.pad_id])
    if highest >= rows:
        token = repr(tokens[highest]) if highest in tokens else "to pad with"
        raise BundleError(
            f"{model.path / TOKENIZER_FILE} has the token {token} of the id {highest} and the input "
            f"embedding has {rows} rows",
            expected=f"ids below {rows}",
            fix="Use the tokenizer that the base model was trained with, or resize_token_embeddings before training",
        )


def _plain(encoder: nn.Module) -> Any:
    wrapped: Any = encoder
    return wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped


def _uncounted(encoder: nn.Module) -> int | None:
    for name, module in encoder.named_modules():
        if name.split(".")[-1] == "position_embeddings" and isinstance(module, nn.Embedding):
            return module.padding_idx
    return None


def _most(config: Any, uncounted: int | None) -> int | None:
    """Return the positions of the configuration that texts can use."""
    limits = []
    total = getattr(config, "max_position_embeddings", None)
    if isinstance(total, int) and total > 0:
        limits.append(total - (0 if uncounted is None else uncounted + 1))
    for field in _ROPE_FIELDS:
        rope = getattr(config, field, None)
        # Beyond the original length, longrope turns all tokens of a batch differently when one text is that long.
        if (
            isinstance(rope, dict)
            and rope.get("rope_type") == "longrope"
            and "original_max_position_embeddings" in rope
        ):
            limits.append(int(rope["original_max_position_embeddings"]))
    return min(limits, default=None)
