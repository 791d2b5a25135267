"""What the cold-start loop needs of a recommender, and the trained ones that come with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from fllm_export import arguments
from fllm_export.coldstart.bipartite_graph import BipartiteGraph
from fllm_export.coldstart.bpr import TripleSource, bpr_loss, penalty
from fllm_export.coldstart.early_stopping import EarlyStopping, epoch_generator
from fllm_export.coldstart.models import LightGcn, Mf, Ngcf
from fllm_export.coldstart.ranked_lists import Candidates, truth_of
from fllm_export.coldstart.recommender_options import RecommenderOptions
from fllm_export.coldstart.starting_vectors import starting_vectors
from fllm_export.coldstart.training_pairs import TrainingPairs
from fllm_export.coldstart.vectors import Vectors
from fllm_export.evaluation.dataset import Pairs
from fllm_export.evaluation.metrics import Ranking
from fllm_export.progress import Progress, silent

_K = 20


class Recommender(Protocol):
    """A recommender that scores by inner products. A class with a name and this method is a whole adapter.

    Its ``repr`` must tell its settings: it decides whether a saved result is used again. A frozen dataclass does that.
    """

    @property
    def name(self) -> str:
        """As tables and files call it."""
        ...

    def fit(
        self, pairs: TrainingPairs, *, seed: int = 0, workspace: Path | None = None, progress: Progress = silent
    ) -> Vectors:
        """Train, and return a vector of every user, and of every item that occurs in ``pairs.pairs``.

        Args:
            pairs: what may be known.
            seed: of everything random.
            workspace: a directory for what an interrupted run continues from.
            progress: is told how far it is.
        """
        ...


@dataclass(frozen=True)
class BprRecommender:
    """MF, LightGCN or NGCF, trained by Bayesian personalised ranking.

    The result depends on the pairs, the options and the seed alone. On a CPU it is deterministic for a given number of
    threads.

    Attributes:
        options: how it is trained.
    """

    options: RecommenderOptions

    @property
    def name(self) -> str:
        """The model's name."""
        return self.options.model

    def fit(
        self, pairs: TrainingPairs, *, seed: int = 0, workspace: Path | None = None, progress: Progress = silent
    ) -> Vectors:
        """Train until NDCG@20 on ``warm_val`` does not rise any more, and return the vectors of the best epoch.

        Items without a pair have no vector. A run that was interrupted continues after its last finished epoch.

        Raises:
            HardwareError: SciPy is not installed.
            BundleError: the state in the workspace is damaged.
        """
        seed = arguments.integer(seed, "seed", least=0, most=2**31 - 1)
        run = _Run(self.options, pairs, seed)
        file = None if workspace is None else arguments.path(workspace, "workspace") / f"{self.name}-{seed}.state"
        users, items = run.trained(file, progress)
        return Vectors(pairs.user_ids, users, pairs.item_ids[run.known], items)


class _Run:
    """One training run. Items are numbered within ``known``, the items that occur in pairs."""

    def __init__(self, options: RecommenderOptions, pairs: TrainingPairs, seed: int) -> None:
        self.known = pairs.pairs.distinct_items
        self._options, self._pairs, self._seed = options, pairs, seed
        items = np.searchsorted(self.known, pairs.pairs.items)
        shape = (len(pairs.user_ids), len(self.known))
        graph = BipartiteGraph.of(pairs.pairs.users, items, pairs.weights, pairs.observed, shape)
        users, rows = starting_vectors(graph.to_items.T.tocsr(), options.dim, options.scale, seed)
        self._model = _model(options, torch.from_numpy(users), torch.from_numpy(rows), graph, seed)
        self._adam = torch.optim.Adam(self._model.parameters(), lr=options.rate, fused=True)
        sides = torch.from_numpy(pairs.pairs.users), torch.from_numpy(items)
        self._source = TripleSource(*sides, torch.from_numpy(pairs.weights), shape[1])

    def trained(self, file: Path | None, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        """Train, and return the scoring vectors of the best epoch."""
        options = self._options
        validation = _Validation.of(self._pairs, self.known)
        EarlyStopping(options.epochs, options.patience).train(
            self._model,
            self._adam,
            self._epoch,
            lambda: validation.ndcg(*self._vectors()),
            file=file,
            key=self._key(),
            stage=f"training {options.model}, seed {self._seed}",
            progress=progress,
        )
        return self._vectors()

    def _epoch(self, epoch: int) -> None:
        generator = epoch_generator(self._seed, epoch)
        if isinstance(self._model, Ngcf):
            self._model.reseed(generator.initial_seed() + 1)
        self._model.train()
        for pairs in self._source.batches(self._options.batch, generator):
            triples = self._source.triples(pairs, generator)
            users, items = self._model()
            loss = bpr_loss(users, items, triples)
            loss = loss + self._options.decay * penalty(self._model.users, self._model.items, triples)
            self._adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._adam.step()

    def _vectors(self) -> tuple[np.ndarray, np.ndarray]:
        self._model.eval()
        with torch.no_grad():
            users, items = self._model()
        return users.detach().numpy(), items.detach().numpy()

    def _key(self) -> str:
        """Return what tells this run from others."""
        digest = hashlib.sha256(json.dumps([self._options.to_json(), self._seed], sort_keys=True).encode())
        pairs = self._pairs
        for part in (pairs.pairs.users, pairs.pairs.items, pairs.weights, pairs.validation.users):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(pairs.validation.items.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Validation:
    """The warm pairs of validation, ranked with the training items masked."""

    candidates: Candidates
    users: np.ndarray
    truth: list[np.ndarray]

    @classmethod
    def of(cls, pairs: TrainingPairs, known: np.ndarray) -> _Validation:
        observed = slice(0, pairs.observed)
        train = Pairs(pairs.pairs.users[observed], np.searchsorted(known, pairs.pairs.items[observed]))
        users = np.unique(pairs.validation.users)
        truth = [np.searchsorted(known, items) for items in truth_of(pairs.validation, users)]
        return cls(Candidates.of(np.unique(train.items), train), users, truth)

    def ndcg(self, users: np.ndarray, items: np.ndarray) -> float:
        if not len(self.users):
            return 0.0
        k = min(_K, len(self.candidates.items))
        found = self.candidates.best(users, items, k)
        return Ranking.of(found.items[self.users], self.truth).ndcg


def _model(
    options: RecommenderOptions, users: torch.Tensor, items: torch.Tensor, graph: BipartiteGraph, seed: int
) -> Mf:
    if options.model == "lightgcn":
        return LightGcn(users, items, graph, options.layers)
    if options.model == "ngcf":
        return Ngcf(users, items, graph, options.layers, options.dropout, seed)
    return Mf(users, items)
