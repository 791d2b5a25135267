"""The cold-start loop, evaluated: recommenders whose cold items have vectors by pseudo-interactions, and baselines."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fllm_export import arguments
from fllm_export.coldstart.cold_choice import GRID, LEVELS, MOST_K, ColdChoice, best_level
from fllm_export.coldstart.content_models.catalogue import CONTENT_MODELS
from fllm_export.coldstart.content_models.content_model import ContentModel, Material
from fllm_export.coldstart.loop_arms import Arm, arms_of, file_name
from fllm_export.coldstart.loop_journal import LoopJournal, only_evaluation_in
from fllm_export.coldstart.loop_result import LoopResult
from fllm_export.coldstart.mark import Mark
from fllm_export.coldstart.names import PROTOCOLS, Protocol
from fllm_export.coldstart.projection import Projection, ProjectionParams, warm_length
from fllm_export.coldstart.pseudo_pairs import PseudoPairs
from fllm_export.coldstart.pseudo_sources import cold_items
from fllm_export.coldstart.ranked_lists import RankedLists, Rows
from fllm_export.coldstart.ranking_tasks import TASKS, RankingTasks, warm_items
from fllm_export.coldstart.recommender import Recommender
from fllm_export.coldstart.training_pairs import TrainingPairs
from fllm_export.coldstart.vectors import Vectors
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.metrics import Ranking
from fllm_export.progress import Progress, silent

_UNTAUGHT = 2


def evaluate_loop(
    models: Mapping[str, str | Path],
    dataset: Dataset | str | Path,
    recommender: Recommender,
    out: str | Path,
    *,
    protocol: Protocol = "b",
    seeds: int = 5,
    k: int = 20,
    texts: str | Path | None = None,
    content_models: Sequence[ContentModel] = CONTENT_MODELS,
    progress: Progress = silent,
) -> LoopResult:
    """Train a recommender on warm pairs, give cold items vectors by pseudo-interactions, and rank.

    The recommender is trained once per seed, on ``train`` alone. Each arm then replaces the vectors of the cold items
    and nothing else, so that the ranking of warm items is the same in all of them. Content models are arms too: they
    are trained beside each recommender, from its vectors, and rank warm items by vectors of their own. What an arm
    chooses, it chooses with the first seed on ``cold_val`` and ``warm_val``; a bundle takes the choices of the
    checkpoint from which it was built, if that is among the models. The test splits are read only when the lists are
    complete.

    Args:
        models: directories of checkpoints and bundles by the names they have in the result.
        dataset: the data set, or its directory.
        recommender: trained here.
        out: a directory for trained recommenders and the journal. The same call continues where it was interrupted.
        protocol: which evaluator's masks, ``a`` or ``b``.
        seeds: number of seeds, from 0 on.
        k: length of the ranked lists.
        texts: the checkpoint whose base encoder gives text vectors to controls and content models; the first one among
            the models when not given.
        content_models: left out where no checkpoint gives text vectors.
        progress: is told how far it is.

    Raises:
        UsageError: a model was trained on other users, ``out`` is in use, or an argument is invalid.
        HardwareError: SciPy, torch or transformers is not installed.
    """
    seeds, k = arguments.integer(seeds, "seeds", least=1), arguments.integer(k, "k", least=1)
    protocol = arguments.one_of(protocol, "protocol", PROTOCOLS)
    data = dataset if isinstance(dataset, Dataset) else Dataset.load(arguments.path(dataset, "dataset"))
    for kind, items in (("cold", cold_items(data)), ("warm", warm_items(data))):
        if k > len(items):
            raise UsageError(f"k is {k}", expected=f"at most {len(items)}, the number of {kind} items")
    folder = arguments.path(out, "out")
    folder.mkdir(parents=True, exist_ok=True)
    with only_evaluation_in(folder):
        arms = arms_of(models, content_models, data, folder, texts, min(MOST_K, len(data.user_ids)), progress)
        loop = _Loop(data, recommender, folder, protocol, k, progress)
        journal = LoopJournal(folder, loop.conditions(arms))
        lines = [[loop.measured(arm, seed, journal) for arm in arms] for seed in range(seeds)]
    names = [arm.name for arm in arms]
    params = {name: line["params"] for name, line in zip(names, lines[0], strict=True)}
    metrics = {name: [line[number]["metrics"] for line in lines] for number, name in enumerate(names)}
    return LoopResult(recommender.name, protocol, k, seeds, metrics, params)


def recommender_file(folder: Path, name: str, seed: int) -> Path:
    """Return where :func:`evaluate_loop` keeps a trained recommender: :class:`Vectors` of users and trained items."""
    return folder / f"{name}-{seed}.safetensors"


@dataclass
class _Trained:
    """A trained recommender and its lists of warm items."""

    seed: int
    vectors: Vectors
    length: float
    tested: RankedLists
    validated: RankedLists


class _Loop:
    """Trains when a seed is first needed, and measures arms."""

    def __init__(
        self, data: Dataset, recommender: Recommender, folder: Path, protocol: Protocol, k: int, progress: Progress
    ) -> None:
        self._data, self._recommender, self._folder = data, recommender, folder
        self._protocol, self._k, self._progress = protocol, k, progress
        self._cold = cold_items(data)
        self._test = RankingTasks.of(data, protocol)
        self._validation = RankingTasks.validation(data)
        self._choice = ColdChoice.of(data, self._cold, k)
        self._trained: _Trained | None = None

    def conditions(self, arms: Sequence[Arm]) -> str:
        """Return what tells figures of this evaluation from others."""
        asked = [self._data.sha256, repr(self._recommender), self._protocol, self._k]
        facts = [*asked, GRID, LEVELS, [arm.key for arm in arms]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def measured(self, arm: Arm, seed: int, journal: LoopJournal) -> dict[str, Any]:
        """Return the figures of an arm and a seed, from the journal where it has them."""
        known = journal.get(arm.name, seed)
        if known is not None:
            return known
        first = journal.get(arm.follows or arm.name, 0)
        if arm.own is not None:
            facts = first or self._by_own_vectors(arm.own)
        elif arm.learner is not None:
            facts = self._by_content(arm, self._train(seed), None if first is None else first["params"]["level"])
        else:
            params = None if first is None else ProjectionParams(**first["params"])
            facts = self._by_recommender(arm.pairs, self._train(seed), params)
        journal.add(arm.name, seed, facts)
        self._progress(f"{self._recommender.name}: {arm.name}", seed + 1, seed + 1)
        return facts

    def _train(self, seed: int) -> _Trained:
        if self._trained is None or self._trained.seed != seed:
            file = recommender_file(self._folder, self._recommender.name, seed)
            vectors = self._fitted(seed, file)
            warm = self._test.warm
            lists = [tasks.warm.best(vectors.users, vectors.items, self._k) for tasks in (self._test, self._validation)]
            length = warm_length(vectors, self._data.item_ids[warm.items])
            self._trained = _Trained(seed, vectors, length, *lists)
        return self._trained

    def _fitted(self, seed: int, file: Path) -> Vectors:
        """Return vectors in the order of the data set; those of cold items are zeros until an arm fills them."""
        pairs = TrainingPairs.of(self._data)
        found = self._kept(
            file,
            f"{self._recommender!r} {self._data.sha256} {seed}",
            lambda folder: self._recommender.fit(pairs, seed=seed, workspace=folder, progress=self._progress),
        )
        known = pairs.pairs.distinct_items
        rows = np.zeros((len(self._data.item_ids), found.dim), np.float32)
        rows[known] = found.items[found.item_places(self._data.item_ids[known])]
        users = found.users[found.user_places(self._data.user_ids)]
        return Vectors(self._data.user_ids, users, self._data.item_ids, rows)

    def _kept(self, file: Path, made_of: str, fit: Callable[[Path], Vectors]) -> Vectors:
        """Return the vectors of a file, trained where the file holds none that were made of the same."""
        mark = Mark(file.with_suffix(".json"), hashlib.sha256(made_of.encode()).hexdigest(), (file,))
        if mark.stands():
            return Vectors.load(file)
        workspace = self._folder / f"training-{file.stem}"
        workspace.mkdir(exist_ok=True)
        found = fit(workspace)
        with mark.renewed():
            found.save(file)
        shutil.rmtree(workspace)
        return found

    def _by_own_vectors(self, own: Vectors) -> dict[str, Any]:
        """Rank cold items by the model's scores; they cannot be compared with a recommender's scores of warm items."""
        lists = self._test.cold.best(own.users, self._among_all(own.items), self._k)
        return {"params": {}, "metrics": {"cold": _figures(self._test.truth["cold"].measure(lists))}}

    def _by_content(self, arm: Arm, trained: _Trained, level: float | None) -> dict[str, Any]:
        """Rank all items by a content model's vectors; ``level`` multiplies its own scores of cold items."""
        assert arm.learner is not None
        name = f"{file_name(arm.learner.name)}-{self._recommender.name}-{trained.seed}.safetensors"
        made_of = f"{arm.key} {self._recommender!r} {self._data.sha256} {trained.seed}"
        made = self._kept(self._folder / name, made_of, lambda folder: self._learned(arm, trained, folder))
        lists = [
            (tasks.warm.best(made.users, made.items, self._k), tasks.cold.best(made.users, made.items, self._k))
            for tasks in (self._validation, self._test)
        ]
        level = level or best_level(self._validation, *lists[0], 1.0)
        found = self._test.measure(*lists[1], level)
        return {"params": {"level": level}, "metrics": {task: _figures(found[task]) for task in TASKS}}

    def _learned(self, arm: Arm, trained: _Trained, workspace: Path) -> Vectors:
        """Train a content model; its vectors are in the order of the data set."""
        assert arm.learner is not None
        assert arm.content is not None
        users, items = trained.vectors.users, trained.vectors.items
        material = Material.of(self._data, users, items, arm.content.read(), self._cold)
        made = arm.learner.fit(material, seed=trained.seed, workspace=workspace, progress=self._progress)
        rows = self._among_all(made.cold)
        rows[self._data.splits["train"].distinct_items] = made.warm
        return Vectors(self._data.user_ids, made.users, self._data.item_ids, rows)

    def _by_recommender(
        self, pairs: PseudoPairs | None, trained: _Trained, params: ProjectionParams | None
    ) -> dict[str, Any]:
        """Give the cold items vectors, and rank; parameters that are not given are chosen on validation pairs."""
        users = trained.vectors.users
        chosen = params or ProjectionParams()
        if pairs is None:
            items = _untaught(len(self._cold), users.shape[1], trained.seed)
        else:
            places = trained.vectors.user_places(pairs.user_ids.reshape(-1)).reshape(pairs.user_ids.shape)
            projection = Projection.of(users)
            chosen = params or self._choice.best(projection, places, pairs.probabilities)
            items = projection.vectors(places, pairs.probabilities, chosen)
        rows = self._among_all(items)
        if params is None:
            seen = self._validation.cold.best(users, rows, self._k)
            level = best_level(self._validation, trained.validated, seen, trained.length)
            chosen = replace(chosen, level=level)
        lists = self._test.cold.best(users, rows, self._k)
        found = self._test.measure(trained.tested, lists, chosen.level * trained.length)
        told = {"level": chosen.level} if pairs is None else chosen.to_json()
        return {"params": told, "metrics": {task: _figures(found[task]) for task in TASKS}}

    def _among_all(self, items: Rows) -> Rows:
        """Return rows of all items, zeros but for the cold ones."""
        rows = np.zeros((len(self._data.item_ids), items.shape[1]), np.float32)
        rows[self._cold] = items
        return rows


def _untaught(count: int, dim: int, seed: int) -> Rows:
    """Return random vectors whose mean length is 1: those of items that nobody is known to like."""
    rows = np.random.default_rng((seed, _UNTAUGHT)).standard_normal((count, dim), np.float32)
    found: Rows = rows / np.linalg.norm(rows, axis=1).mean()
    return found


def _figures(ranking: Ranking) -> dict[str, float]:
    return {name: value for name, value in asdict(ranking).items() if name in ("recall", "ndcg", "lists")}
