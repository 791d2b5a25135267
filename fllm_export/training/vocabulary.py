"""Stage 1: the user vocabulary and its guider, matrix factorisation with item-oriented BPR.

The item is fixed and users compete for it (FilterLLM, arXiv 2502.16924, figure 2). The authors factorise with
LightGCN; on CiteULike-a its two layers gave stage 2 no better start than plain factorisation, and cost more time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fllm_export.evaluation.dataset import Pairs
from fllm_export.evaluation.negatives import Positives
from fllm_export.progress import Progress, silent
from fllm_export.training.losses import bpr_loss
from fllm_export.training.recipe import SoftmaxRecipe

_INITIAL_SCALE = 0.1


@dataclass(frozen=True)
class Vocabulary:
    """What stage 1 hands to stage 2, without gradients.

    Attributes:
        users: the first user rows, float32 [U, d].
        items: the guidance targets g_i, float32 [I, d]; zero for items without a training pair.
    """

    users: Tensor
    items: Tensor


def build_vocabulary(
    pairs: Pairs, users: int, items: int, recipe: SoftmaxRecipe, progress: Progress = silent
) -> Vocabulary:
    """Factorise the training pairs.

    Args:
        pairs: positives; every user and trained item occurs.
        users: number of users U.
        items: number of items I, those without a pair included.
        recipe: gives dim, seed, and the fields that begin with ``vocabulary_``.
        progress: counts epochs.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    liked_by, liked = torch.from_numpy(pairs.users), torch.from_numpy(pairs.items)
    rows = nn.Parameter(torch.randn(users, recipe.dim, generator=generator) * _INITIAL_SCALE)
    columns = nn.Parameter(torch.randn(items, recipe.dim, generator=generator) * _INITIAL_SCALE)
    known = Positives(liked_by, liked, users)
    optimizer = torch.optim.Adam([rows, columns], lr=recipe.vocabulary_learning_rate, fused=True)
    for epoch in range(recipe.vocabulary_epochs):
        order = torch.randperm(len(pairs), generator=generator)
        for start in range(0, len(pairs), recipe.vocabulary_batch):
            chosen = order[start : start + recipe.vocabulary_batch]
            item, user = liked[chosen], liked_by[chosen]
            other = known.draw_negatives(item, generator)
            loss = _step_loss(rows, columns, (item, user, other), recipe.vocabulary_decay)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        progress("stage 1: vocabulary", epoch + 1, recipe.vocabulary_epochs)
    trained = torch.bincount(liked, minlength=items) > 0
    return Vocabulary(rows.detach(), columns.detach() * trained.unsqueeze(1))


def _step_loss(rows: Tensor, columns: Tensor, batch: tuple[Tensor, Tensor, Tensor], decay: float) -> Tensor:
    item, user, other = batch
    # F.embedding's backward adds rows up in parallel; indexing's does not.
    z, mine, theirs = F.embedding(item, columns), F.embedding(user, rows), F.embedding(other, rows)
    lengths = z.square().sum() + mine.square().sum() + theirs.square().sum()
    return bpr_loss((z * mine).sum(1), (z * theirs).sum(1)) + decay / (2 * len(item)) * lengths
