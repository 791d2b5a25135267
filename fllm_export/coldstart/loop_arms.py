"""The arms of an evaluation: from where cold items have users, or vectors. What they need is kept in a directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fllm_export import arguments
from fllm_export.coldstart.content_models.content_file import ContentFile
from fllm_export.coldstart.content_models.content_model import ContentModel
from fllm_export.coldstart.mark import Mark
from fllm_export.coldstart.pseudo_pairs import PseudoPairs
from fllm_export.coldstart.pseudo_sources import CONTROLS, cold_items, control_pairs, model_pairs
from fllm_export.coldstart.vectors import Vectors
from fllm_export.directory_kinds import CHECKPOINT
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.evaluation import text_vectors
from fllm_export.evaluation.item_vectors import ItemVectors
from fllm_export.evaluation.ranker import Ranker, Rows, encode_items, open_ranker, rows_of_users
from fllm_export.files import publish_text
from fllm_export.manifest import Manifest
from fllm_export.progress import Progress

NO_PAIRS = "no pseudo pairs"
OWN = "its own ranking"


@dataclass(frozen=True)
class Arm:
    """One way to rank cold items.

    Attributes:
        name: as tables show it.
        key: changes with everything that the arm was computed from.
        pairs: pseudo-interactions of all cold items, ascending; None for items that stay untaught.
        own: a model's own vectors of users and cold items, ascending, in place of a recommender's.
        learner: a content model, which is trained beside each trained recommender.
        content: what it reads.
        follows: the arm whose choices it takes over: that of the checkpoint from which a bundle was built, so that the
            two differ in precision alone.
    """

    name: str
    key: str
    pairs: PseudoPairs | None = None
    own: Vectors | None = None
    learner: ContentModel | None = None
    content: ContentFile | None = None
    follows: str | None = None


def arms_of(
    models: Mapping[str, str | Path],
    learners: Sequence[ContentModel],
    dataset: Dataset,
    folder: Path,
    texts: str | Path | None,
    k: int,
    progress: Progress,
) -> list[Arm]:
    """Return the controls, the content models, then two arms per model: its pseudo-interactions, and its own ranking.

    Checkpoints come before bundles. Without a checkpoint there are no contents, and content models are left out.

    Raises:
        UsageError: there is no model, or two arms have the same name.
    """
    if not models:
        raise UsageError("no model is given", expected="at least one checkpoint or bundle")
    opened = _Opened({name: arguments.path(path, "model") for name, path in models.items()}, texts, dataset, progress)
    arms = [Arm(NO_PAIRS, NO_PAIRS), *_controls(opened, dataset, folder, k, progress)]
    arms += _learners(learners, opened, dataset, folder)
    for name in sorted(models, key=opened.is_bundle):
        arms += _of_model(name, opened, dataset, folder, k, progress)
    names = [arm.name for arm in arms]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UsageError(f"two arms are called {repeated!r}", expected="another name for the model")
    return arms


class _Opened:
    """Models and text vectors, opened when they are first needed.

    Attributes:
        paths: of the models, by name.
        text_keys: change with the files that text vectors may come from.
    """

    def __init__(self, paths: dict[str, Path], texts: str | Path | None, dataset: Dataset, progress: Progress) -> None:
        self.paths = paths
        sources = [Path(texts)] if texts is not None else paths.values()
        self.text_keys = [fingerprint(path) for path in sources]
        self._rankers: dict[str, Ranker] = {}
        self._texts, self._dataset, self._progress = texts, dataset, progress

    def ranker(self, name: str) -> Ranker:
        if name not in self._rankers:
            self._rankers[name] = open_ranker(self.paths[name])
        return self._rankers[name]

    def is_bundle(self, name: str) -> bool:
        return not CHECKPOINT.found_at(self.paths[name])

    def origin(self, name: str) -> str | None:
        """Return the checkpoint among the models that a bundle was built from, or None."""
        if not self.is_bundle(name):
            return None
        made_of = Manifest.load(self.paths[name]).provenance.get("checkpoint_sha256")
        return next((each for each, made in self._checkpoints.items() if made == made_of), None)

    @cached_property
    def _checkpoints(self) -> dict[str, str]:
        from fllm_export.checkpoint.checkpoint import Checkpoint

        found = {name: path for name, path in self.paths.items() if not self.is_bundle(name)}
        return {name: Checkpoint.load(path).fingerprint() for name, path in found.items()}

    @cached_property
    def vectors(self) -> ItemVectors | None:
        """Text vectors by the base encoder of a checkpoint, or None where there is none."""
        return text_vectors([self.ranker(name) for name in self.paths], self._texts, self._dataset, self._progress)


def _controls(opened: _Opened, dataset: Dataset, folder: Path, k: int, progress: Progress) -> Iterator[Arm]:
    key = _key("controls", dataset.sha256, str(k), *opened.text_keys)
    files = {control.name: _file(folder, control.name) for control in CONTROLS}
    names = folder / "controls-made.json"
    mark = Mark(folder / "controls.json", key, (names,))
    if not mark.stands():
        with mark.renewed():
            made = []
            for name, pairs in control_pairs(dataset, opened.vectors, k, progress):
                pairs.save(files[name])
                made.append(name)
            publish_text(names, json.dumps(made))
    for name in json.loads(names.read_text()):
        yield Arm(name, key, PseudoPairs.load(files[name]))


def _learners(learners: Sequence[ContentModel], opened: _Opened, dataset: Dataset, folder: Path) -> Iterator[Arm]:
    if not learners:
        return
    content = ContentFile(folder, _key("content", dataset.sha256, *opened.text_keys))
    if not content.written() and opened.vectors is not None:
        content.write(opened.vectors(np.arange(len(dataset.item_ids))))
    if content.written():
        for learner in learners:
            yield Arm(learner.name, _key(content.key, repr(learner)), learner=learner, content=content)


def _of_model(name: str, opened: _Opened, dataset: Dataset, folder: Path, k: int, progress: Progress) -> Iterator[Arm]:
    key, origin = _key("model", dataset.sha256, str(k), fingerprint(opened.paths[name])), opened.origin(name)
    pairs, own = _file(folder, name), _file(folder, f"{name} own")
    mark = Mark(pairs.with_suffix(".json"), key, (pairs, own))
    if not mark.stands():
        ranker, items = opened.ranker(name), cold_items(dataset)
        rows, bias = rows_of_users(ranker, dataset.user_ids)
        z = encode_items(ranker, [dataset.texts[item] for item in items], progress)
        likely = model_pairs(ranker, z, dataset.item_ids[items], k, progress)
        users, vectors = _joined(rows, z, bias)
        with mark.renewed():
            likely.save(pairs)
            Vectors(dataset.user_ids, users, dataset.item_ids[items], vectors).save(own)
    yield Arm(name, key if origin is None else _key(key, origin), PseudoPairs.load(pairs), follows=origin)
    yield Arm(f"{name}, {OWN}", key, own=Vectors.load(own))


def _joined(rows: Rows, z: Rows, bias: Rows | None) -> tuple[Rows, Rows]:
    """Return users and items whose inner products are the scores, the biases of users included."""
    if bias is None:
        return rows, z
    ones = np.ones((len(z), 1), np.float32)
    return np.concatenate([rows, bias[:, None]], axis=1), np.concatenate([z, ones], axis=1)


def fingerprint(model: Path) -> str:
    """Return what changes with the files of a model: their names, sizes and times."""
    facts = [
        f"{file.relative_to(model)} {file.stat().st_size} {file.stat().st_mtime_ns}"
        for file in sorted(model.rglob("*"))
        if file.is_file()
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _key(*facts: str) -> str:
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _file(folder: Path, name: str) -> Path:
    return folder / f"pairs-{file_name(name)}.safetensors"


def file_name(name: str) -> str:
    """Return a name with a hyphen for each letter that has no place in the name of a file."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
