"""From an item's text to token ids: the prompt template, truncation and padding.

Training, calibration and serving all go through this one class, so that an item is the same sequence
of tokens everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.errors import BundleError, UsageError
from fllm_export.system_errors import limit_error

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

PLACEHOLDER = "{text}"

PaddingSide = Literal["left", "right"]
PADDING_SIDES: tuple[PaddingSide, ...] = get_args(PaddingSide)


@dataclass(frozen=True)
class Prompt:
    """A template around the item's text, and the rules that make token ids of it.

    Attributes:
        template: a string with the placeholder ``{text}`` exactly once.
        max_length: tokens at most, special tokens included. Only the item's own text is ever shortened:
            what follows the placeholder (the closing question) keeps all its tokens, because the model
            reads the distribution off the last one.
        padding_side: where shorter sequences of a batch are filled up.
        pad_id: the token id to fill with; the attention mask is 0 there.
    """

    template: str
    max_length: int
    padding_side: PaddingSide
    pad_id: int

    def __post_init__(self) -> None:
        if not isinstance(self.template, str):
            raise UsageError(f"template is {self.template!r:.60}", expected=f"a string with {PLACEHOLDER} in it")
        if self.template.count(PLACEHOLDER) != 1:
            raise UsageError(
                f"the template {self.template!r} holds {PLACEHOLDER} {self.template.count(PLACEHOLDER)} times",
                expected="the placeholder exactly once",
                fix="Put {text} where the item's text belongs",
            )
        object.__setattr__(self, "max_length", arguments.integer(self.max_length, "max_length", least=1))
        object.__setattr__(self, "padding_side", arguments.one_of(self.padding_side, "padding_side", PADDING_SIDES))
        object.__setattr__(self, "pad_id", arguments.integer(self.pad_id, "pad_id", least=0))

    def tokenize(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        """Return each item's token ids, at most ``max_length`` of them, without padding.

        Raises:
            UsageError: the template alone is longer than ``max_length``, or an item has no token at all.
        """
        before, after = self.template.split(PLACEHOLDER)
        encodings = tokenizer.encode_batch([before + text + after for text in texts])
        return [
            self._truncate(encoding, len(before), len(before) + len(text))
            for encoding, text in zip(encodings, texts, strict=True)
        ]

    def batch(self, ids: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return ``input_ids`` and ``attention_mask``, both int64 [items, longest], padded on ``padding_side``."""
        longest = max(len(row) for row in ids)
        input_ids = np.full((len(ids), longest), self.pad_id, np.int64)
        attention_mask = np.zeros((len(ids), longest), np.int64)
        for i, row in enumerate(ids):
            window = slice(longest - len(row), longest) if self.padding_side == "left" else slice(0, len(row))
            input_ids[i, window] = row
            attention_mask[i, window] = 1
        return input_ids, attention_mask

    def _truncate(self, encoding: Encoding, text_start: int, text_end: int) -> list[int]:
        ids: list[int] = encoding.ids
        if not ids:
            raise UsageError(
                "an item's prompt has no tokens",
                expected="at least one",
                fix="Give the item a text, or add words to the template",
            )
        excess = len(ids) - self.max_length
        if excess <= 0:
            return ids
        # Special tokens have the empty span (0, 0); a token that reaches past the text belongs to the question.
        inside = [
            i
            for i, (start, end) in enumerate(encoding.offsets)
            if end > start and start >= text_start and end <= text_end
        ]
        if len(inside) < excess:
            raise UsageError(
                f"the template needs {len(ids) - len(inside)} tokens and max_length is {self.max_length}",
                expected="more tokens than the template needs",
                fix="Raise max_length or shorten the template",
            )
        dropped = set(inside[len(inside) - excess :])
        return [token for i, token in enumerate(ids) if i not in dropped]


def load_tokenizer(path: Path) -> Tokenizer:
    """Read ``tokenizer.json`` with its own padding and truncation switched off: the prompt does both.

    Raises:
        BundleError: the file is missing or is not a tokenizer.
    """
    from tokenizers import Tokenizer

    if not path.is_file():
        raise BundleError(
            f"{path} is missing", expected="a tokenizer", fix="Copy the base model's tokenizer.json there"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers package raises nothing narrower
        damaged = BundleError(f"{path} is not a tokenizer: {error}", expected="a tokenizer.json")
        raise limit_error(error, path) or damaged from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
