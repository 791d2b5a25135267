"""What a training run did, as a file beside its checkpoint, by which the same run is recognised later."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish_json
from fllm_export.strict_json import read_object
from fllm_export.training.recipe import Recipe
from fllm_export.training.run_state import EpochRecord

FILE_NAME = "training.json"

# Facts whose values tell a reader nothing.
_HASHED = {"dataset_sha256": "data set", "encoder_sha256": "content of the encoder's directory"}


@dataclass(frozen=True)
class TrainingReport:
    """What a run did; written beside the checkpoint as ``training.json``.

    Attributes:
        recipe: every hyper-parameter.
        encoder: its name, or its folder's name.
        encoder_sha256: of all that decides the vector of a text; empty in reports of older releases.
        dataset_sha256: of the data set's two files.
        items: items trained on.
        users: user rows.
        dim: dimension of a user row.
        epochs: one record per epoch; 0 is what came before LoRA.
        kept_epoch: the one that the checkpoint holds, chosen by user NDCG@20 on cold_val alone; in a run with
            ``max_steps`` the last. When it is 0, LoRA improved nothing and the checkpoint has no adapter that changes
            anything.
        findings: what the recipe found out besides: of the closed form its setting and its logits.
        seconds: wall time by stage.
    """

    recipe: Recipe
    encoder: str
    encoder_sha256: str
    dataset_sha256: str
    items: int
    users: int
    dim: int
    epochs: list[EpochRecord]
    kept_epoch: int
    findings: dict[str, Any]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {**asdict(self), "recipe": self.recipe.to_json()}

    def save(self, out: Path) -> None:
        """Write the report beside the checkpoint ``out``, all or nothing."""
        publish_json(out / FILE_NAME, self.to_json())

    @classmethod
    def load(cls, out: Path, recipe: Recipe, **facts: str) -> TrainingReport:
        """Return the report of a run that has ended.

        Args:
            out: its checkpoint.
            recipe: the one that it must have had.
            **facts: attributes that it must have, by name.

        Raises:
            UsageError: the run had another recipe, or a fact differs; the message says which.
            BundleError: the report is damaged.
        """
        path = out / FILE_NAME
        found = {"encoder_sha256": "", **read_object(path)}
        try:
            former = {**found["recipe"], **{name: found[name] for name in facts}}
            records = [EpochRecord(**record) for record in found["epochs"]]
            report = cls(**{**found, "recipe": recipe, "epochs": records})
        except (KeyError, TypeError) as error:
            raise BundleError(
                f"{path} is damaged: {error}", expected="the report of a run", fix=f"Delete {out} to train again"
            ) from error
        _check(out, former, {**json.loads(json.dumps(recipe.to_json())), **facts})
        return report


def _check(out: Path, former: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a run with other arguments than those that made a checkpoint."""
    names = [name for name in {**wanted, **former} if former.get(name) not in ("", wanted.get(name))]
    if names:
        told = (f"another {_HASHED[name]}" if name in _HASHED else f"{name} {former.get(name)}" for name in names)
        asked = (f"the same {_HASHED[name]}" if name in _HASHED else f"{name} {wanted.get(name)}" for name in names)
        raise UsageError(
            f"{out} holds a checkpoint that was trained with {', '.join(told)}",
            expected=f"{', '.join(asked)}, or a new directory",
            fix="Choose another output directory, or delete this one",
        )
