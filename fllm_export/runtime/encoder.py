"""From item texts to item vectors: tokenizer, prompt and the exported encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError, UsageError
from fllm_export.item_texts import as_texts
from fllm_export.prompt import Prompt, load_tokenizer
from fllm_export.runtime.item_model import open_item_model


class Encoder:
    """A bundle's encoder. Safe to use from many threads at once.

    Args:
        bundle: its directory.
        prompt: how texts become tokens.
        dim: dimension of an item vector.
        threads: threads inside one call on the CPU.
        where: what runs it, one of ``engines.names.ENCODERS``.

    Raises:
        BundleError: ``tokenizer.json``, ``encoder/model.onnx`` or a plan is missing or unreadable.
        HardwareError: what was requested cannot run here.
        UsageError: there is no encoder of that name.
    """

    def __init__(self, bundle: Path, prompt: Prompt, dim: int, threads: int, where: str = "cpu") -> None:
        self._prompt = prompt
        self._dim = dim
        self._tokenizer = load_tokenizer(bundle / "tokenizer.json")
        self._model = open_item_model(where, bundle, dim, threads)
        self.where = where

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, prompt included.

        Raises:
            UsageError: ``texts`` is not a list, Series or 1-d array of at least one text, or a text is empty or not
                Unicode; its number is named.
        """
        return self._prompt.tokenize(self._tokenizer, as_texts(texts, "texts"))

    def checked(self, items: Any) -> list[list[int]]:
        """Return token ids per item that a caller gave, special tokens included.

        Raises:
            UsageError: an item is not a list of 1 to ``max_length`` token ids; its number is named.
        """
        most, tokens = self._prompt.max_length, self._tokenizer.get_vocab_size()
        for number, item in enumerate(items):
            if not isinstance(item, list) or not 1 <= len(item) <= most:
                length = f"{len(item)} tokens" if isinstance(item, list) else f"a {type(item).__name__}"
                raise UsageError(f"item {number} (counted from 0) is {length}", expected=f"1 to {most} token ids")
            for token in item:
                if type(token) is not int or not 0 <= token < tokens:
                    raise UsageError(
                        f"item {number} (counted from 0) holds {token!r:.60}",
                        expected=f"token ids: integers from 0 to {tokens - 1}",
                    )
        return [list(item) for item in items]

    def encode(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return item vectors, float32 [items, d]; items of similar length share a batch.

        Raises:
            BundleError: the encoder gives an item a vector that is not finite.
        """
        z = np.empty((len(ids), self._dim), np.float32)
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        step = self._model.most_items
        for start in range(0, len(ids), step):
            chosen = by_length[start : start + step]
            z[chosen] = self._model.run(*self._prompt.batch([ids[i] for i in chosen]))
        finite = np.isfinite(z).all(1)
        if not finite.all():
            raise BundleError(
                f"the encoder gives text {int(np.argmin(finite))} (counted from 0) an item vector that is not finite",
                expected="finite numbers for every text",
                fix="Check the checkpoint's weights, and build the bundle again",
            )
        return z
