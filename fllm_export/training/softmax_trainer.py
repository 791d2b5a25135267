"""The published way: user rows by BPR, then LoRA, mapper and rows against L_dist + lambda * L_guid."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.checkpoint.users import UserRows
from fllm_export.evaluation.dataset import Positions
from fllm_export.evaluation.metrics import Ranking
from fllm_export.progress import Progress
from fllm_export.training.descent import Descent
from fllm_export.training.encoders import lora_targets
from fllm_export.training.head import Head
from fllm_export.training.lora_trainer import LoraTrainer
from fllm_export.training.material import Material
from fllm_export.training.ranked_users import SELECTION_K
from fllm_export.training.recipe import SoftmaxRecipe
from fllm_export.training.run_state import RunState
from fllm_export.training.vocabulary import Vocabulary, build_vocabulary


class SoftmaxTrainer(LoraTrainer):
    """Stage 1 and stage 2 of FilterLLM.

    Attributes:
        head: mapper and user rows.
    """

    _recipe: SoftmaxRecipe

    def __init__(self, material: Material, recipe: SoftmaxRecipe, run: RunState, progress: Progress) -> None:
        super().__init__(material, recipe, lora_targets(material.encoder.encoder), run, progress)
        self._users = [torch.from_numpy(users) for users in material.liked]
        stored = run.tensors("vocabulary", self._vocabulary)
        head = Head(recipe.mapper, material.width, Vocabulary(stored["users"], stored["items"]))
        self.head = head.to(material.arithmetic.device)

    def _vocabulary(self) -> dict[str, Tensor]:
        dataset = self.material.dataset
        users, items = len(dataset.user_ids), len(dataset.item_ids)
        made = build_vocabulary(dataset.splits["train"], users, items, self._recipe, self._progress)
        return {"users": made.users, "items": made.items}

    def _begin(self) -> None:
        """Fit mapper and rows to the frozen encoder's states; the best of the passes is kept."""
        recipe, began, items = self._recipe, time.monotonic(), self.material.items
        states = self._frozen["items"]
        torch.manual_seed(recipe.seed)
        self.head.fit(states, torch.from_numpy(items))
        steps = -(-len(items) // recipe.warmup_batch)
        groups = [{"params": list(self.head.parameters()), "peak": recipe.warmup_learning_rate}]
        descent = Descent(groups, steps * recipe.warmup_epochs)
        best: tuple[float, Ranking, dict[str, Tensor]] | None = None
        for epoch in range(recipe.warmup_epochs):
            loss = self._warm_up_pass(states, descent)
            ranking = self._ranking(self._frozen["validation"])
            if best is None or ranking.ndcg > best[1].ndcg:
                best = loss, ranking, {name: value.clone() for name, value in self.head.state_dict().items()}
            self._progress("stage 2: warm-up", epoch + 1, recipe.warmup_epochs)
        assert best is not None
        self.head.load_state_dict(best[2])
        self._keep(0, best[0], best[1], began, None)

    def _warm_up_pass(self, states: Tensor, descent: Descent) -> float:
        order, size = torch.randperm(len(states)), self._recipe.warmup_batch
        total = 0.0
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            total += descent.step(self._loss(states[chosen], chosen.numpy())) * len(chosen)
        return total / len(order)

    def _beside(self) -> tuple[nn.Module, float]:
        return self.head, self._recipe.head_learning_rate

    def _loss(self, states: Tensor, items: Positions) -> Tensor:
        users = [self._users[place] for place in items.tolist()]
        return self.head.loss(states, torch.from_numpy(self.material.items[items]), users, self._recipe.guidance)

    def _validate(self) -> Ranking:
        material = self.material
        encoded = material.tokens.encode(material.encoder, material.validation, "validation", self._progress)
        return self._ranking(encoded)

    @torch.no_grad()
    def _ranking(self, states: Tensor) -> Ranking:
        k = min(SELECTION_K, len(self.material.dataset.user_ids))
        best = self.head.scores(states).topk(k, dim=1).indices
        return Ranking.of(best.cpu().numpy(), self.material.truth)

    def checkpoint(self, workspace: Path) -> Checkpoint:
        """Return the kept epoch as a checkpoint whose adapter lies in ``workspace``."""
        self._run.restore(self.kept_epoch, self._weights())
        rows = self.head.user_rows.detach().cpu().numpy()
        users = UserRows.from_array(rows, ids=self.material.dataset.user_ids)
        spec, choice = self.material.spec(self._recipe.mapper, self._recipe.dim), self.material.choice
        mapper = self.head.folded_mapper()
        return Checkpoint(spec, choice.path, self._adapter(workspace), mapper, users, choice.features)

    def findings(self) -> dict[str, Any]:
        """Return nothing: the epochs say it all."""
        return {}
