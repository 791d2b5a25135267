"""Bayesian personalised ranking (Rendle et al., 2009): its loss and its negative items."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fllm_export.evaluation.negatives import Positives


@dataclass(frozen=True)
class Triples:
    """Users, items that they like, and items that they are not known to like.

    Attributes:
        users: int64 [B].
        liked: int64 [B].
        others: int64 [B].
        weights: of each triple, float32 [B].
    """

    users: Tensor
    liked: Tensor
    others: Tensor
    weights: Tensor


class TripleSource:
    """The pairs of an epoch in random order, each with a negative item that is drawn uniformly.

    An item that the user is trained on is never a negative; nothing else is known about the user.

    Args:
        users: of each pair, int64 [P].
        items: of each pair, int64 [P].
        weights: of each pair, float32 [P].
        item_count: number of items, T.
    """

    def __init__(self, users: Tensor, items: Tensor, weights: Tensor, item_count: int) -> None:
        self._users, self._items, self._weights = users, items, weights
        # With the roles swapped: for each user an item outside the user's own.
        self._known = Positives(items, users, item_count)

    def batches(self, size: int, generator: torch.Generator) -> list[Tensor]:
        """Return the numbers of the pairs of an epoch, in batches of ``size``."""
        return list(torch.split(torch.randperm(len(self._users), generator=generator), size))

    def triples(self, pairs: Tensor, generator: torch.Generator) -> Triples:
        """Return the triples of some pairs."""
        users = self._users[pairs]
        others = self._known.draw_negatives(users, generator)
        return Triples(users, self._items[pairs], others, self._weights[pairs])


def bpr_loss(users: Tensor, items: Tensor, triples: Triples) -> Tensor:
    """Return sum w -ln sigmoid(u . i - u . j) / B.

    Args:
        users: scoring vectors, float32 [U, d].
        items: scoring vectors, float32 [T, d].
        triples: B of them.
    """
    of_users = functional.embedding(triples.users, users)
    gaps = functional.embedding(triples.liked, items) - functional.embedding(triples.others, items)
    losses = functional.softplus(-(of_users * gaps).sum(1))
    return (triples.weights * losses).sum() / len(losses)


def penalty(users: Tensor, items: Tensor, triples: Triples) -> Tensor:
    """Return half of the mean over the triples of the squared lengths of their three vectors."""
    lengths_of_users, lengths_of_items = users.square().sum(1), items.square().sum(1)
    total = lengths_of_users[triples.users] + lengths_of_items[triples.liked] + lengths_of_items[triples.others]
    return total.sum() / (2 * len(total))
