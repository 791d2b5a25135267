"""From item texts to item vectors: tokenizer, prompt and the exported encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError, UsageError
from fllm_export.onnx_session import cpu_session
from fllm_export.prompt import Prompt, load_tokenizer

BATCH = 32


class Encoder:
    """A bundle's encoder on the CPU. Safe to use from many threads at once.

    Raises:
        BundleError: ``tokenizer.json`` or ``encoder/model.onnx`` is missing or unreadable.
    """

    def __init__(self, bundle: Path, prompt: Prompt, dim: int, threads: int) -> None:
        self._prompt = prompt
        self._dim = dim
        self._tokenizer = load_tokenizer(bundle / "tokenizer.json")
        model = bundle / "encoder" / "model.onnx"
        if not model.is_file():
            raise BundleError(f"{model} is missing", expected="the exported encoder", fix="Build the bundle again")
        self._session = cpu_session(model, threads)

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
        for start in range(0, len(ids), BATCH):
            chosen = by_length[start : start + BATCH]
            input_ids, attention_mask = self._prompt.batch([ids[i] for i in chosen])
            feed = {"input_ids": input_ids, "attention_mask": attention_mask}
            z[chosen] = self._session.run(["item_vector"], feed)[0]
        return z
