"""What a run learns from: the training items, the items that choose the best epoch, and the encoder."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from fllm_export.checkpoint.checkpoint import BASE_FOLDER
from fllm_export.checkpoint.feature_layers import feature_layers
from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.checkpoint.spec import CheckpointSpec, MapperKind
from fllm_export.evaluation.dataset import Dataset, Positions
from fllm_export.progress import Progress
from fllm_export.training.arithmetic import Arithmetic
from fllm_export.training.encoders import EncoderChoice
from fllm_export.training.item_tokens import ItemTokens
from fllm_export.training.lora import load_encoder
from fllm_export.training.recipe import Recipe
from fllm_export.training.user_sums import UserItems


class Material:
    """Items and pairs of the splits ``train`` and ``cold_val``; no other split is looked at.

    Attributes:
        dataset: where they are from.
        choice: the encoder as it was chosen.
        items: the training items, int64 [T], ascending.
        validation: the items of cold_val, int64 [V], ascending.
        truth: for each validation item the users that liked it.
        liked: for each training item the users that liked it.
        max_length: tokens of a prompt at most.
        tokens: all items' prompts.
        encoder: the frozen encoder, without a mapper.
        width: dimensions of the encoder's vector x.
        arithmetic: where the encoder computes, and in what precision LoRA is trained.
    """

    def __init__(
        self, dataset: Dataset, choice: EncoderChoice, recipe: Recipe, arithmetic: Arithmetic, progress: Progress
    ) -> None:
        self.dataset, self.choice, self.arithmetic, self._progress = dataset, choice, arithmetic, progress
        train, held_out = dataset.splits["train"], dataset.splits["cold_val"]
        self.items = self._subset(train.distinct_items, recipe)
        self.validation = self._subset(held_out.distinct_items, recipe)
        self.truth = held_out.users_of(self.validation)
        self.liked = train.users_of(self.items)
        self.max_length = choice.longest(recipe.max_length)
        self.tokens = ItemTokens.of(dataset.texts, choice, self.max_length)
        torch.manual_seed(recipe.seed)
        model, hidden = load_encoder(choice.path)
        self.encoder = ItemEncoder(model, choice.pooling, nn.Identity(), feature_layers(choice.features))
        self.encoder.to(arithmetic.device)
        self.encoder.requires_grad_(False)
        self.encoder.positions.require(self.max_length, choice.path)
        width = choice.features.width(hidden)
        assert width is not None
        self.width = width

    def _subset(self, items: Positions, recipe: Recipe) -> Positions:
        """Return all items, or in a short run as many as its steps take."""
        steps, batch = recipe.max_steps, recipe.batch
        if steps is None or steps * batch >= len(self.dataset.splits["train"].distinct_items):
            return items
        chosen = np.random.default_rng(recipe.seed).permutation(items)[: steps * batch]
        return np.sort(chosen)

    def states(self, stage: str) -> dict[str, Tensor]:
        """Return x of the training items, ``items`` float32 [T, h], and of ``validation``, float32 [V, h]."""
        self.encoder.eval()
        # In batches of their own: which cold items there are must not change the last bits of a training item.
        parts = {"items": self.items, "validation": self.validation}
        return {name: self.tokens.encode(self.encoder, part, stage, self._progress) for name, part in parts.items()}

    @cached_property
    def users(self) -> UserItems:
        """The training items of each user, by their place in ``items``."""
        sizes = [len(users) for users in self.liked]
        owners = np.repeat(np.arange(len(self.items)), sizes)
        return UserItems.of(np.concatenate(self.liked), owners, len(self.dataset.user_ids))

    def places(self, items: Positions) -> Positions:
        """Return where some training items are in ``items``, int64 [n]."""
        found: Positions = np.searchsorted(self.items, items)
        return found

    def spec(self, mapper: MapperKind, dim: int) -> CheckpointSpec:
        """Return the declared facts of a checkpoint of this encoder."""
        return CheckpointSpec(
            base_model=BASE_FOLDER,
            template=self.choice.template,
            pooling=self.choice.pooling,
            max_length=self.max_length,
            padding_side=self.choice.padding_side,
            mapper=mapper,
            dim=dim,
            users=len(self.dataset.user_ids),
            features=self.choice.features.specs,
        )
