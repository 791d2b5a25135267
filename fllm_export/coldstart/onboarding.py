"""New items become vectors of a recommender: likely users from the model, and an update of those items alone."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.coldstart.blending import ItemUsers, blended, grouped
from fllm_export.coldstart.onboard_options import OnboardOptions
from fllm_export.coldstart.updates import open_update
from fllm_export.coldstart.vectors import Vectors
from fllm_export.engines.base import UserFilter
from fllm_export.errors import UsageError
from fllm_export.item_texts import as_texts
from fllm_export.runtime.runtime import Runtime
from fllm_export.runtime.user_table import UserTable
from fllm_export.table.table import Table

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

_ENCODER_FILES = ("encoder/", "tokenizer.json")


@dataclass(frozen=True)
class Onboarded:
    """New items and how they came by their vectors.

    Attributes:
        item_ids: int64 [B].
        vectors: in the space of the recommender, float32 [B, d].
        user_ids: pseudo-users, the best first, int64 [B, K].
        shares: p_u / (sum of p over the K), or 1 / K with uniform weights, float64 [B, K].
        real_users: real interactions that were blended in, int64 [B].
        generation: version number of the user table that answered.
        timings_ms: wall time by stage: ``encode`` (texts only), ``select``, ``update``.
    """

    item_ids: Ids
    vectors: F32
    user_ids: Ids
    shares: F64
    real_users: Ids
    generation: int
    timings_ms: dict[str, float]

    def __len__(self) -> int:
        return len(self.item_ids)


class Onboarder:
    """Makes vectors of new items for one recommender. Preparing it reads all its users' vectors once.

    What an item becomes depends on the item alone: its text, its real users and the options. Texts are encoded one by
    one, scores of quantised tables are bit-identical in every batch, and updates do not mix items. So items may be cut
    into batches in any way.

    Args:
        source: an open bundle, for item texts; or an open user table, for item vectors.
        recommender: its trained vectors, which stay as they are. Items without training should not be among them,
            because the mean item and the scale of scores are taken from there.
        options: see :class:`OnboardOptions`.
        user_degrees: interactions of each of the recommender's users, at least 1, integers [U]; used by ``propagate``
            only.

    Raises:
        UsageError: the recommender knows none of the table's users, or k is larger than the number of those it knows,
            or an argument is invalid.
    """

    def __init__(
        self,
        source: Runtime | UserTable,
        recommender: Vectors,
        options: OnboardOptions | None = None,
        *,
        user_degrees: npt.ArrayLike | None = None,
    ) -> None:
        self._source = source
        self._table = source.users if isinstance(source, Runtime) else source
        self._recommender = recommender
        self.options = OnboardOptions() if options is None else options
        self._filter = _unknown_users(self._table, recommender, self.options.k)
        degrees = None if user_degrees is None else _degrees(user_degrees, len(recommender.user_ids))
        self._update = open_update(recommender, self.options, degrees)

    @property
    def takes_texts(self) -> bool:
        """Whether items are texts, rather than item vectors."""
        return isinstance(self._source, Runtime)

    @property
    def unknown_users(self) -> int:
        """Users of the table whom the recommender does not know: they are never chosen as pseudo-users."""
        return 0 if self._filter is None else len(self._filter.user_ids)

    @property
    def dim(self) -> int:
        """Dimension of item vectors."""
        return self._table.dim

    @property
    def encoder_sha256(self) -> str:
        """Hash of what makes item vectors: the bundle's encoder, tokenizer and prompt; empty for a user table."""
        if not isinstance(self._source, Runtime):
            return ""
        manifest = self._source.manifest
        files = {name: entry.sha256 for name, entry in manifest.files.items() if name.startswith(_ENCODER_FILES)}
        facts = {"files": files, "prompt": asdict(manifest.prompt), "encoder": self._source.encoder}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def onboard(
        self,
        items: Sequence[str] | npt.ArrayLike,
        item_ids: npt.ArrayLike | None = None,
        real_users: Sequence[npt.ArrayLike] | None = None,
    ) -> Onboarded:
        """Return the vectors of some items.

        Args:
            items: texts, or for a user table item vectors, float32 [B, d].
            item_ids: int64 [B]; 0 to B - 1 when not given.
            real_users: ids of the users who interacted with each item, B lists of integers; none when not given. A
                user whom the recommender does not know is left out.

        Raises:
            UsageError: an argument is invalid.
            BundleError: the encoder or the table gives numbers that are not finite.
        """
        began = time.monotonic()
        z, seeds = self._item_vectors(items)
        encoded = time.monotonic()
        # An id may come twice: two states of one item.
        ids = np.arange(len(z)) if item_ids is None else arguments.ids(item_ids, "item_ids", len(z))
        real = [self._real(users) for users in _lists(real_users, len(z))]
        answer = self._table.topk(
            z, self.options.k, mode=self.options.mode, seed=seeds, exact=True, log_probs="none", filter=self._filter
        )
        shares = _shares(self._table.link.logits(answer.scores), self.options.weights)
        selected = time.monotonic()
        pseudo = self._recommender.user_places(answer.user_ids.reshape(-1)).reshape(answer.user_ids.shape)
        users = [
            blended(places, part, known, self.options.half_at)
            for places, part, known in zip(pseudo, shares, real, strict=True)
        ]
        vectors = self._vectors(users)
        updated = time.monotonic()
        stages = {"encode": encoded - began, "select": selected - encoded, "update": updated - selected}
        return Onboarded(
            ids,
            vectors,
            answer.user_ids,
            shares,
            np.array([len(known) for known in real], np.int64),
            answer.generation,
            {name: seconds * 1e3 for name, seconds in stages.items() if name != "encode" or self.takes_texts},
        )

    def _item_vectors(self, items: Any) -> tuple[F32, list[int]]:
        """Return item vectors [B, d], and a seed of each item, which depends on the item alone."""
        if isinstance(self._source, Runtime):
            texts = as_texts(items, "texts")
            z = np.concatenate([self._source.encode([text]) for text in texts])
            contents = [text.encode() for text in texts]
        else:
            z = arguments.vectors(items, "items", self._table.dim)
            contents = [row.astype("<f4").tobytes() for row in z]
        salt = self.options.seed.to_bytes(8, "little")
        return z, [int.from_bytes(hashlib.sha256(salt + content).digest()[:8], "little") for content in contents]

    def _real(self, users: Any) -> Ids:
        wanted = np.unique(arguments.ids(users, "real_users"))
        at = self._recommender.user_places(wanted[np.isin(wanted, self._recommender.user_ids)])
        return np.sort(at)

    def _vectors(self, users: list[ItemUsers]) -> F32:
        found = np.empty((len(users), self._recommender.dim), np.float32)
        for group in grouped(users, self._recommender.dim):
            found[group.items] = self._update.vectors(group.places, group.weights)
        return found


def onboard(
    runtime: Runtime | UserTable,
    texts: Sequence[str] | npt.ArrayLike,
    recommender: Vectors,
    *,
    item_ids: npt.ArrayLike | None = None,
    real_users: Sequence[npt.ArrayLike] | None = None,
    options: OnboardOptions | None = None,
) -> Onboarded:
    """Return the vectors of some new items once; a server keeps an :class:`Onboarder`, whose arguments these are.

    Raises:
        UsageError: an argument is invalid.
        BundleError: the encoder or the table gives numbers that are not finite.
    """
    return Onboarder(runtime, recommender, options).onboard(texts, item_ids, real_users)


def _unknown_users(table: UserTable, recommender: Vectors, k: int) -> UserFilter | None:
    """Return a filter of the live users that the recommender does not know, or None where it knows all."""
    ids = list(Table(table.directory).live_ids())
    unknown = np.concatenate([part[~np.isin(part, recommender.user_ids)] for part in ids])
    known = sum(map(len, ids)) - len(unknown)
    if known < k:
        raise UsageError(
            f"the recommender knows {known:,} users of the user table {table.directory}",
            expected=f"at least the {k} pseudo-users per item",
            fix="Train both on the same user ids, or lower k",
        )
    return table.filter(deny=unknown) if len(unknown) else None


def _shares(logits: F64, weights: str) -> F64:
    """Return the softmax over the K logits, where the denominator over all users cancels; or equal shares."""
    if weights == "uniform":
        return np.full(logits.shape, 1 / logits.shape[1])
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: F64 = powers / powers.sum(1, keepdims=True)
    return shares


def _lists(real_users: Sequence[npt.ArrayLike] | None, count: int) -> Sequence[Any]:
    if real_users is None:
        return [[]] * count
    if len(real_users) != count:
        raise UsageError(f"real_users has {len(real_users)} lists", expected=f"{count}, one per item")
    return real_users


def _degrees(values: Any, count: int) -> F64:
    return arguments.ids(values, "user_degrees", count, least=1).astype(np.float64)
