"""A softmax head on frozen item vectors for more users than a full softmax can hold, taught by the closed form.

    s_iu   = exp(t) Q dropout(z_i) . e_u + b_u      as written: dropout acts on Q z
    target = mix * (uniform over the users of i) + (1 - mix) * softmax(sharpness teacher_u . z_i)_u
    loss   = cross-entropy of the target and softmax(s), over sampled candidates (:mod:`.sampled_softmax`)

Rows e and biases b are in a :class:`UserStore` and moved by Adagrad, Q and t are in memory and moved by Adam. The
store has one accumulator per row, but the numbers of z, and so the gradients of a row's numbers, differ in size by
orders of magnitude. They are therefore divided by the root mean square of their column of z: one factor per row and
one per column stand for one per number, as in Adafactor (Shazeer and Stern, ICML 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_export import arguments
from fllm_export.errors import UsageError
from fllm_export.progress import Progress, silent
from fllm_export.training.hard_negatives import hard_negatives
from fllm_export.training.sampled_softmax import Candidates
from fllm_export.training.user_store import UserStore
from fllm_export.training.user_sums import FloatArray, Positions

Teacher = Callable[[Positions], npt.NDArray[np.floating]]
"""From user positions int64 [n] to the teacher's rows [n, k]; k is at most the dimension of the item vectors."""


_STRETCH_ITEMS = 16_384
_LEAST_SQUARE = 1e-30


@dataclass(frozen=True, kw_only=True)
class SampledSettings:
    """The hyper-parameters of a sampled head.

    Attributes:
        batch: items in a step.
        positives: users of an item in a step at most; of more, so many are drawn in every step.
        sampled: users that are drawn in every step besides those that are certain.
        hard: hard negatives per item; 0 for none.
        refresh: steps after which hard negatives are searched again, for the items of the next so many steps.
        mix: share of the observed users in the target, from 0 to 1; the teacher has the rest.
        sharpness: what the teacher's scores are multiplied by.
        scale: exp(t) before the first step.
        dropout: probability, on Q z.
        row_rate: Adagrad's learning rate of rows; 0.15 of the root mean square of their numbers is a good start.
        bias_rate: Adagrad's learning rate of biases.
        item_rate: Adam's learning rate of Q.
        scale_rate: Adam's learning rate of t.
        seed: of the order of items, of all draws and of dropout.

    Raises:
        UsageError: a number is out of range.
    """

    batch: int = 256
    positives: int = 64
    sampled: int = 8192
    hard: int = 0
    refresh: int = 1 << 20
    mix: float = 0.5
    sharpness: float = 1.0
    scale: float = 1.0
    dropout: float = 0.2
    row_rate: float = 3e-3
    bias_rate: float = 1e-2
    item_rate: float = 3e-4
    scale_rate: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "positives", "sampled", "refresh"):
            object.__setattr__(self, name, arguments.integer(getattr(self, name), name, least=1))
        for name in ("hard", "seed"):
            object.__setattr__(self, name, arguments.integer(getattr(self, name), name, least=0))
        for name, most in (("mix", 1.0), ("dropout", 0.99)):
            object.__setattr__(self, name, arguments.real(getattr(self, name), name, least=0, most=most))
        for name in ("sharpness", "scale", "row_rate", "bias_rate", "item_rate", "scale_rate"):
            object.__setattr__(self, name, arguments.real(getattr(self, name), name, least=1e-12))


class SampledHead:
    """Trains the rows of a store, and Q and t beside them, one epoch after the other.

    Args:
        store: with the rows to begin with; a store with finished epochs is gone on with.
        z: vectors of the training items, float32 [T, D], in memory or mapped into it.
        liked: for each training item the positions of its users, at least one, ascending.
        teacher: the closed form's rows.
        settings: the hyper-parameters.

    Attributes:
        q: Q, float32 [d, D]; in a new store the first d rows of the identity.
        log_scale: t, float32 [].

    Raises:
        UsageError: an item has no user, the numbers of items differ, or rows have more dimensions than z.
        BundleError: the weights in the store are damaged.
    """

    def __init__(
        self,
        store: UserStore,
        z: FloatArray,
        liked: Sequence[Positions],
        teacher: Teacher,
        settings: SampledSettings,
    ) -> None:
        if z.ndim != 2 or len(z) != len(liked) or z.shape[1] < store.dim:
            found = f"z (item vectors) has the shape {list(z.shape)}"
            raise UsageError(found, expected=f"[{len(liked)}, at least {store.dim}], as many items as in liked")
        self._store, self._z, self._liked, self._teacher, self._settings = store, z, liked, teacher, settings
        self.q = torch.nn.Parameter(torch.eye(z.shape[1])[: store.dim].clone())
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(settings.scale)))
        self._adam = torch.optim.Adam(
            [
                {"params": [self.q], "lr": settings.item_rate},
                {"params": [self.log_scale], "lr": settings.scale_rate},
            ]
        )
        self._stretch = _stretch(z, store.dim)
        self._hard: dict[int, Positions] = {}
        if store.epochs:
            self._restore()

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps that see every item once."""
        return -(-len(self._liked) // self._settings.batch)

    def queries(self, z: FloatArray) -> FloatArray:
        """Return q with score_u = e_u . q + b_u, float32 [n, d], of item vectors z, float32 [n, D]."""
        with torch.no_grad():
            found: FloatArray = (torch.from_numpy(np.ascontiguousarray(z)) @ self.q.T * self.log_scale.exp()).numpy()
        return found

    def run(self, epochs: int, progress: Progress = silent) -> list[float]:
        """Train until the store has so many finished epochs; return the mean loss of each that was trained.

        The same call after an interruption gives, with the same number of threads, the same rows.

        Args:
            epochs: in all, those that are finished included.
            progress: counts steps, and items while hard negatives are searched.

        Raises:
            UsageError: a loss is not finite.
        """
        losses = []
        while self._store.epochs < epochs:
            self._store.begin()
            losses.append(self.epoch(progress))
            self._store.commit(self._dense())
        return losses

    def epoch(self, progress: Progress = silent, steps: int | None = None) -> float:
        """Take the steps of one epoch, or its first ``steps``, in an epoch of the store; return their mean loss.

        Raises:
            UsageError: a loss is not finite, or the store is not in an epoch.
        """
        settings = self._settings
        generator = np.random.default_rng([settings.seed, self._store.epochs])
        torch.manual_seed(int(generator.integers(1 << 62)))
        order, total, sum_of_losses = generator.permutation(len(self._liked)), 0, 0.0
        last = self.steps_per_epoch if steps is None else min(steps, self.steps_per_epoch)
        for number in range(last):
            if settings.hard and number % settings.refresh == 0:
                self._search(order[number * settings.batch :][: settings.refresh * settings.batch], progress)
            items = order[number * settings.batch : (number + 1) * settings.batch]
            sum_of_losses += self._step(items, generator) * len(items)
            total += len(items)
            progress("softmax head", number + 1, last)
        return sum_of_losses / total

    def _search(self, items: Positions, progress: Progress) -> None:
        queries, own = self.queries(self._z[items]), [self._liked[int(item)] for item in items]
        found = hard_negatives(self._store, queries, own, self._settings.hard, self._store.directory, progress)
        self._hard = dict(zip(items.tolist(), found, strict=True))

    def _step(self, items: Positions, generator: np.random.Generator) -> float:
        settings = self._settings
        positives = [self._some(self._liked[int(item)], generator) for item in items]
        certain = np.concatenate([*positives, *(self._hard[int(item)] for item in items if self._hard)])
        candidates = Candidates.draw(certain, settings.sampled, self._store.users, generator)
        rows, bias = (values.requires_grad_() for values in self._store.gather(candidates.users))
        z = torch.from_numpy(np.ascontiguousarray(self._z[items]))
        scores = F.dropout(z @ self.q.T, settings.dropout) @ rows.T * self.log_scale.exp() + bias
        loss = candidates.loss(scores, self._targets(z, positives, candidates))
        value = loss.item()
        if not math.isfinite(value):
            raise UsageError(f"the loss is {value}", expected="a finite number", fix="Lower the learning rates")
        self._adam.zero_grad()
        torch.autograd.backward(loss)
        self._adam.step()
        assert rows.grad is not None
        assert bias.grad is not None
        rates = settings.row_rate, settings.bias_rate
        self._store.step(candidates.users, rows.grad * self._stretch, bias.grad, rates)
        return value

    def _some(self, users: Positions, generator: np.random.Generator) -> Positions:
        most = self._settings.positives
        return users if len(users) <= most else generator.choice(users, most, replace=False, shuffle=False)

    def _targets(self, z: Tensor, positives: list[Positions], candidates: Candidates) -> Tensor:
        """Return the targets over the candidates, float32 [B, n]; users drawn from an item's stand for all of them."""
        mix = self._settings.mix
        if mix < 1:
            taught = torch.from_numpy(np.asarray(self._teacher(candidates.users), np.float32))
            scores = z[:, : taught.shape[1]] @ taught.T * self._settings.sharpness
            targets = candidates.distribution(scores) * (1 - mix)
        else:
            targets = torch.zeros(len(z), len(candidates.users))
        sizes = [len(users) for users in positives]
        owners = np.repeat(np.arange(len(sizes)), sizes)
        shares = np.repeat(mix / np.array(sizes, np.float32), sizes).astype(np.float32)
        places = candidates.places(np.concatenate(positives))
        targets[torch.from_numpy(owners), torch.from_numpy(places)] += torch.from_numpy(shares)
        return targets

    def _dense(self) -> dict[str, Tensor]:
        """Return what :meth:`_restore` needs: Q, t and the moments of Adam."""
        found = {"q": self.q, "log_scale": self.log_scale}
        for name, parameter in list(found.items()):
            for key, value in self._adam.state[parameter].items():
                found[f"{name}.{key}"] = value
        return {name: value.detach() for name, value in found.items()}

    def _restore(self) -> None:
        kept = self._store.dense()
        with torch.no_grad():
            for name, parameter in (("q", self.q), ("log_scale", self.log_scale)):
                parameter.copy_(kept.pop(name))
                prefix = f"{name}."
                moments = {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
                self._adam.state[parameter] = moments


def _stretch(z: FloatArray, dim: int) -> Tensor:
    """Return what the gradients of rows are multiplied by, float32 [d]: 1 / root mean square of the column of z."""
    places = np.linspace(0, len(z) - 1, min(len(z), _STRETCH_ITEMS)).astype(np.int64)
    columns = torch.from_numpy(np.ascontiguousarray(z[places, :dim]))
    return columns.square().mean(0).clamp(min=_LEAST_SQUARE).rsqrt()
