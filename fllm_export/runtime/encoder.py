"""From item texts to item vectors: tokenizer, prompt and the exported encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.prompt import Prompt, load_tokenizer
from fllm_export.runtime.item_model import open_item_model


class Encoder:
    """A bundle's encoder. Safe to use from many threads at once.

    Args:
        bundle: its directory.
        prompt: how texts become tokens.
        dim: numbers of an item vector.
        threads: threads inside one call on the CPU.
        where: what runs it, one of ``item_model.ENCODERS``.

    Raises:
        BundleError: ``tokenizer.json``, ``encoder/model.onnx`` or a plan is missing or unreadable.
        HardwareError: what was asked for cannot run here.
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
            UsageError: ``texts`` is a single string or empty, or holds something else than strings, or a blank one.
        """
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"texts are {texts!r:.60}", expected="a list of at least one string")
        for number, text in enumerate(texts):
            if not text.strip():
                raise UsageError(f"text {number} is {text!r}", expected="a text that is not empty")
        return self._prompt.tokenize(self._tokenizer, texts)

    def encode(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return item vectors, float32 [items, d]; items of similar length share a batch."""
        z = np.empty((len(ids), self._dim), np.float32)
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        step = self._model.most_items
        for start in range(0, len(ids), step):
            chosen = by_length[start : start + step]
            z[chosen] = self._model.run(*self._prompt.batch([ids[i] for i in chosen]))
        return z
