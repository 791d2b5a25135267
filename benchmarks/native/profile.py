"""Users like those of a real table: sums of items that they might have liked, by a model of its items."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

DIRECTORY = Path(__file__).with_name("profiles")

TOPICS = 64
_ROUNDS = 12
_SMALLEST = 1e-6
_PENALTY = 0.1


@dataclass(frozen=True)
class Taste:
    """How users choose their items.

    Attributes:
        interests: topics that a user is drawn to.
        sharpness: how much likelier a topic is that resembles an interest: e^sharpness times at most. The interests
            themselves lie together by a sharpness of their own, drawn for each user from 0 to this.
        log_size: mean of the logarithm of a user's number of items.
        log_spread: its standard deviation.
    """

    interests: int
    sharpness: float
    log_size: float
    log_spread: float


@dataclass(frozen=True, eq=False)
class Profile:
    """Topics of item vectors, and the taste of the users who like them.

    Item vectors are a mixture of Gaussians, one per topic, with independent coordinates in the principal directions of
    the items: the first coordinates matter most. A user draws items, and the row is the sum of what they give to a row
    in closed form, which is proportional to (Z'Z + lambda I)^-1 z, over the square root of their number.

    Attributes:
        shares: of the topics among items, [C], of sum 1.
        means: [C, d].
        deviations: standard deviations, [C, d].
        taste: of the users.
        scale: what brings scores to the deviation that they have in the real table.
    """

    shares: F64
    means: F32
    deviations: F32
    taste: Taste
    scale: float = 1.0

    @classmethod
    def of_items(cls, z: F32, taste: Taste, seed: int = 0) -> Profile:
        """Part item vectors [n, d] into topics by k-means, and keep share, mean and spread of each."""
        wide = z.astype(np.float64)
        _, axes = np.linalg.eigh(wide.T @ wide)
        vectors = z @ np.ascontiguousarray(axes[:, ::-1], np.float32)
        generator = np.random.default_rng(seed)
        count = min(TOPICS, len(vectors))
        centres = vectors[generator.choice(len(vectors), count, replace=False)]
        for _ in range(_ROUNDS):
            nearest = np.argmin(np.square(centres).sum(1) - 2 * vectors @ centres.T, axis=1)
            members = [np.flatnonzero(nearest == topic) for topic in range(count)]
            # A topic that lost all items takes one at random.
            members = [own if len(own) else generator.integers(0, len(vectors), 1) for own in members]
            centres = np.stack([vectors[own].mean(0) for own in members])
        sizes = np.array([len(own) for own in members], np.float64)
        deviations = np.stack([vectors[own].std(0) for own in members]).astype(np.float32)
        return cls(sizes / sizes.sum(), centres.astype(np.float32), np.maximum(deviations, _SMALLEST), taste)

    @property
    def dim(self) -> int:
        """Dimension of the vectors that it was made of."""
        return self.means.shape[1]

    def items(self, generator: np.random.Generator, count: int, dim: int) -> F32:
        """Return item vectors [count, dim], their first coordinates."""
        topics = generator.choice(len(self.shares), count, p=self.shares)
        noise = generator.standard_normal((count, dim), dtype=np.float32)
        drawn: F32 = self.means[topics, :dim] + noise * self.deviations[topics, :dim]
        return drawn

    def users(self, generator: np.random.Generator, count: int, dim: int) -> F32:
        """Return user rows [count, dim], their first coordinates."""
        taste = self.taste
        logs = taste.log_size + taste.log_spread * generator.standard_normal(count)
        sizes = np.maximum(np.rint(np.exp(logs)), 1).astype(np.int64)
        topics = generator.multinomial(sizes, self._chances(generator, count)).astype(np.float32)
        # The sum of n items of one topic is Gaussian too: n times the mean, and a variance n times the topic's.
        noise = generator.standard_normal((count, dim), dtype=np.float32)
        spread = np.sqrt(topics @ np.square(self.deviations[:, :dim]))
        weights = (self.scale * self._inverse_moments[:dim]).astype(np.float32)
        rows: F32 = (topics @ self.means[:, :dim] + spread * noise) * weights
        rows /= np.sqrt(sizes.astype(np.float32))[:, None]
        return rows

    def _chances(self, generator: np.random.Generator, count: int) -> F64:
        """Return how likely each topic is for each of some users, [count, C]."""
        taste, likeness = self.taste, self._likeness
        first = generator.choice(len(self.shares), count, p=self.shares)
        near = self.shares * np.exp(generator.uniform(0, taste.sharpness, (count, 1)) * likeness[first])
        ranks = near.cumsum(1)
        drawn = generator.random((count, taste.interests)) * ranks[:, -1:]
        interests = (ranks[:, None, :] < drawn[:, :, None]).sum(2)
        liked = self.shares * np.exp(taste.sharpness * likeness)
        liked /= liked.sum(1, keepdims=True)
        chances: F64 = liked[interests].mean(1)
        return chances / chances.sum(1, keepdims=True)

    @property
    def _inverse_moments(self) -> F64:
        """The diagonal of (Z'Z / n + lambda I)^-1, [d]; principal directions leave nothing beside it."""
        means, deviations = self.means.astype(np.float64), self.deviations.astype(np.float64)
        moments = self.shares @ (np.square(means) + np.square(deviations))
        return 1 / (moments + _PENALTY * moments.mean())

    @property
    def _likeness(self) -> F64:
        """The cosine of the topics in the metric of :attr:`_inverse_moments`, [C, C]."""
        means = self.means.astype(np.float64) * np.sqrt(self._inverse_moments)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        likeness: F64 = means @ means.T
        return likeness

    def save(self, name: str) -> Path:
        """Write the profile as :data:`DIRECTORY`/name.npz, its vectors in float16, and return where."""
        DIRECTORY.mkdir(exist_ok=True)
        path = DIRECTORY / f"{name}.npz"
        facts = json.dumps({"taste": asdict(self.taste), "scale": self.scale})
        half = {"means": self.means.astype(np.float16), "deviations": self.deviations.astype(np.float16)}
        np.savez_compressed(path, shares=self.shares.astype(np.float32), facts=np.array(facts), **half)
        return path

    @classmethod
    def load(cls, name: str) -> Profile:
        """Return the profile of that name."""
        with np.load(DIRECTORY / f"{name}.npz") as stored:
            facts = json.loads(str(stored["facts"]))
            shares = stored["shares"].astype(np.float64)
            means, deviations = (stored[what].astype(np.float32) for what in ("means", "deviations"))
        return cls(shares / shares.sum(), means, deviations, Taste(**facts["taste"]), facts["scale"])
