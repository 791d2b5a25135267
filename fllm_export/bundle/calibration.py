"""The steps of a build that measure item texts and user rows, and choose the transform by what they find."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.bundle.bundle import CALIBRATION_REPORT
from fllm_export.bundle.job import Job
from fllm_export.calibration.directions import BALANCE, SEED, UNROTATED, Directions, cut
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.ranks import offered_dims, recall_by_dim, smallest_dim
from fllm_export.calibration.transform import Transform
from fllm_export.errors import ParityError, UsageError
from fllm_export.files import publish_json, sha256_file

F32 = npt.NDArray[np.float32]

FOLDER = "calibration"
MOMENTS, TRANSFORM = f"{FOLDER}/moments.safetensors", f"{FOLDER}/transform.safetensors"

ROWS_MEASURED = 1 << 18
"""User rows that their second moment and the recall by dimension are measured on, at most, evenly spread."""

_TEXTS_AT_ONCE = 256


def moments_key(job: Job) -> str:
    """Return a hash of everything that decides the moments."""
    choices = job.transform_choices
    return job.key("moments", *choices[:2])


def transform_key(job: Job) -> str:
    """Return a hash of everything that decides the transform."""
    return job.key("transform", *job.transform_choices)


def moments(job: Job, staging: Path) -> list[Path]:
    """Encode the calibration texts that parity leaves, once, and write the moments of their item vectors."""
    shutil.rmtree(staging / FOLDER, ignore_errors=True)
    if not job.transform_choices:
        return []
    path = staging / MOMENTS
    Moments.of(_item_vectors(job)).save(path)
    return [path]


def _item_vectors(job: Job) -> Iterator[F32]:
    texts, stage = job.moment_texts, "calibration vectors"
    job.progress(stage, 0, len(texts))
    for first in range(0, len(texts), _TEXTS_AT_ONCE):
        part = texts[first : first + _TEXTS_AT_ONCE]
        yield job.reference.item_vectors(part)
        job.progress(stage, first + len(part), len(texts))


def transform(job: Job, staging: Path) -> list[Path]:
    """Choose the directions by the moments of items and rows, and write the transform and its report.

    Raises:
        UsageError: the rows have a lower rank than the requested dimension.
        ParityError: ``auto`` finds no smaller dimension that keeps enough of the ranking.
    """
    path, report = staging / TRANSFORM, staging / CALIBRATION_REPORT
    for old in (path, report):
        old.unlink(missing_ok=True)
    if not job.transform_choices:
        return []
    items = Moments.load(staging / MOMENTS)
    directions = Directions.of(items, _row_moments(job))
    whole = directions.transform(directions.rank, BALANCE)
    dims = _offered(job, directions)
    recalls = recall_by_dim(whole, dims, job.item_vectors, _rows(job, "recall by dimension"), job.options.k)
    dim = _chosen(job, recalls)
    cut(directions, dim, job.options.table.quant).save(path)
    publish_json(
        report,
        {
            "texts": items.count,
            "moments_sha256": sha256_file(staging / MOMENTS),
            "shrinkage": items.shrinkage,
            "dim": {"requested": job.options.dim, "chosen": dim, "of": items.dim, "rank": directions.rank},
            "score_energy_kept": directions.kept(dim),
            "k": job.options.k,
            "recall_by_dim": {str(m): recall for m, recall in recalls.items()},
            "rotation_seed": None if job.options.table.quant in UNROTATED else SEED,
        },
    )
    return [path, report]


def take_up(job: Job, staging: Path) -> None:
    """Give the job the transform that the build has chosen."""
    if job.transform_choices:
        job.transform = Transform.load(staging / TRANSFORM)


def _row_moments(job: Job) -> Moments:
    return Moments.of(rows for rows, _ in _rows(job, "moments of user rows"))


def _rows(job: Job, stage: str) -> Iterator[tuple[F32, F32 | None]]:
    users = job.reference.users
    done, total = 0, min(users.rows, ROWS_MEASURED)
    for _, rows, bias in users.spread_chunks(ROWS_MEASURED):
        yield rows, bias
        done += len(rows)
        job.progress(stage, min(done, total), total)


def _offered(job: Job, directions: Directions) -> list[int]:
    dim, rank = job.options.dim, directions.rank
    if isinstance(dim, int):
        if dim > rank:
            raise UsageError(
                f"dim is {dim} and the scores of the user rows have rank {rank}",
                expected=f"at most {rank}",
                fix="Choose a smaller --dim, or --dim auto",
            )
        return [dim]
    return [m for m in offered_dims(directions.root.shape[0]) if m <= rank]


def _chosen(job: Job, recalls: dict[int, float]) -> int:
    if job.options.dim != "auto":
        return next(iter(recalls))
    share = job.options.cut_recall
    found = smallest_dim(recalls, share)
    if found is None:
        raise ParityError(
            f"no dimension below {job.checkpoint.users.dim} has recall@{job.options.k} {share:g} against the full rows"
            + (f"; {max(recalls)} has {recalls[max(recalls)]:.4f}" if recalls else ""),
            expected="a smaller dimension that keeps it, half of what --min-recall lets go of being left to the codec",
            fix="Omit --dim, or lower --min-recall",
        )
    return found


def calibration_facts(report: dict[str, Any] | None) -> dict[str, str]:
    """Return what a calibration report says, in lines for people; none where there is no report."""
    if report is None:
        return {}
    dim, k = report["dim"], report["k"]
    recall = report["recall_by_dim"][str(dim["chosen"])]
    chosen = f"{dim['chosen']} of {dim['of']}" + (" (chosen by --dim auto)" if dim["requested"] == "auto" else "")
    return {
        "dimensions kept": f"{chosen}; recall@{k} {recall:.4f} before the rows are quantised",
        "chosen by": f"the item vectors of {report['texts']:,} calibration texts",
    }
