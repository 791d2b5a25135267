"""The items as token ids, and batches of items of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fllm_export.checkpoint.base import BaseModel
from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import Positions
from fllm_export.progress import Progress, silent
from fllm_export.prompt import PLACEHOLDER, Prompt
from fllm_export.training.encoders import EncoderChoice

# Shuffled items are sorted by length within groups of so many batches: little padding, batches still random.
_BATCHES_PER_GROUP = 16
_ENCODE_ITEMS = 64


@dataclass(frozen=True)
class ItemTokens:
    """Every item's prompt as token ids.

    Attributes:
        prompt: the template and its padding rules.
        ids: one list of token ids per item.
        lengths: tokens of each item, int64 [I].
    """

    prompt: Prompt
    ids: list[list[int]]
    lengths: Positions

    @classmethod
    def of(cls, texts: Sequence[str], encoder: EncoderChoice, max_length: int) -> ItemTokens:
        """Tokenise the texts of all items.

        Raises:
            UsageError: ``max_length`` leaves no room for a token of the text.
        """
        base = BaseModel.check(encoder.path)
        prompt = Prompt(encoder.template, max_length, encoder.padding_side, base.pad_id)
        tokenizer = base.tokenizer()
        # With no room for a text all items would be one vector, and the run would learn nothing from them.
        bare = len(tokenizer.encode(encoder.template.replace(PLACEHOLDER, "")).ids)
        if max_length <= bare:
            raise UsageError(
                f"max_length is {max_length}, and the prompt without a text has {bare} tokens",
                expected="room for a text",
                fix="Raise max_length",
            )
        ids = prompt.tokenize(tokenizer, texts)
        return cls(prompt, ids, np.array([len(row) for row in ids], np.int64))

    def batch(self, items: Positions) -> tuple[Tensor, Tensor]:
        """Return ``input_ids`` and ``attention_mask`` of some items, int64 [B, L]."""
        input_ids, attention_mask = self.prompt.batch([self.ids[i] for i in items])
        return torch.from_numpy(input_ids), torch.from_numpy(attention_mask)

    def shuffled_batches(self, items: Positions, size: int, seed: tuple[int, int]) -> list[Positions]:
        """Return all items once, in batches of ``size``, in an order that the seed decides."""
        generator = np.random.default_rng(seed)
        order = generator.permutation(items)
        group = size * _BATCHES_PER_GROUP
        batches = []
        for start in range(0, len(order), group):
            part = order[start : start + group]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + size] for i in range(0, len(part), size)]
        return [batches[i] for i in generator.permutation(len(batches))]

    @torch.no_grad()
    def encode(
        self, encoder: ItemEncoder, items: Positions, stage: str = "encoding", progress: Progress = silent
    ) -> Tensor:
        """Return the pooled states of some items, float32 [n, h], in their order, in memory of the CPU.

        The encoder computes where its weights are.
        """
        device = next(encoder.parameters()).device
        by_length = np.argsort(self.lengths[items], kind="stable")
        parts = []
        for start in range(0, len(items), _ENCODE_ITEMS):
            ids, mask = self.batch(items[by_length[start : start + _ENCODE_ITEMS]])
            parts.append(encoder.pooled(ids.to(device), mask.to(device)).cpu())
            progress(stage, min(start + _ENCODE_ITEMS, len(items)), len(items))
        states = torch.empty(len(items), parts[0].shape[1])
        states[torch.from_numpy(by_length)] = torch.cat(parts)
        return states
