"""The steps of a build that measure item texts and user rows, and choose the transform by what they find."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.bundle.job import Job
from fllm_export.calibration.directions import (
    BALANCE,
    FEEDBACK_BALANCE,
    SEED,
    UNROTATED,
    Directions,
    ordered,
    rotation,
    transform_for,
)
from fllm_export.calibration.moment_sums import MomentSums
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.ranks import offered_dims, recall_by_dim, smallest_dim
from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.transform import Transform
from fllm_export.errors import BundleError, ParityError, UsageError
from fllm_export.files import publish_json, sha256_file
from fllm_export.manifest import CALIBRATION_REPORT, MOMENTS, TRANSFORM
from fllm_export.strict_json import read_object

F32 = npt.NDArray[np.float32]

FOLDER = "calibration"

ROWS_MEASURED = 1 << 18
"""User rows that their second moment and the recall by dimension are measured on, at most, evenly spread."""

_TEXTS_AT_ONCE = 256
_SAVE_EVERY_S = 20.0
_SUMS = ".moments-"


def moments_key(job: Job) -> str:
    """Return a hash of everything that decides the moments."""
    return job.source_key("moments", *job.measured_by)


def transform_key(job: Job) -> str:
    """Return a hash of everything that decides the transform."""
    return job.source_key("transform", *job.transform_choices)


def moments(job: Job, staging: Path) -> list[Path]:
    """Encode the calibration texts that parity leaves, once, and write the moments of their item vectors.

    The sums so far are kept every :data:`_SAVE_EVERY_S` seconds, and an interrupted pass resumes from them.
    """
    shutil.rmtree(staging / FOLDER, ignore_errors=True)
    if not job.measured_by:
        return []
    path = staging / MOMENTS
    Moments.of_sums(_summed(job, staging / f"{_SUMS}{moments_key(job)}.safetensors")).save(path)
    return [path]


def forget_sums(job: Job, staging: Path) -> None:
    """Remove the sums that an interrupted pass kept: the moments are on record, or are not needed."""
    for path in staging.glob(f"{_SUMS}*"):
        path.unlink()


def _summed(job: Job, kept: Path) -> MomentSums:
    sums = MomentSums.none(job.checkpoint.users.dim)
    if kept.exists():
        with contextlib.suppress(BundleError):  # damaged ones count for nothing
            sums = MomentSums.load(kept)
    saved = time.monotonic()
    for vectors in _item_vectors(job, sums.count):
        sums.add(vectors)
        if time.monotonic() - saved >= _SAVE_EVERY_S:
            sums.save(kept)
            saved = time.monotonic()
    return sums


def _item_vectors(job: Job, done: int = 0) -> Iterator[F32]:
    """Yield the item vectors of the texts after the first ``done``, float32 [texts, d] each."""
    texts, stage = job.moment_texts, "calibration vectors"
    job.progress(stage, done, len(texts))
    for first in range(done, len(texts), _TEXTS_AT_ONCE):
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
    choices = job.choices
    if not choices.transformed:
        return []
    facts: dict[str, Any] = {"rounding": choices.rounding, "too_few_texts": choices.too_few}
    if choices.measured:
        found, measured = _by_directions(job, staging)
        facts |= measured
    else:
        found = rotation(choices.rows, SEED)
    found.save(path)
    facts["rotation_seed"] = None if choices.quant in UNROTATED else SEED
    facts["dim"] = {"requested": choices.dim, "chosen": facts.pop("scan_dim", found.dim), "of": choices.rows}
    publish_json(report, facts)
    return [path, report]


def _by_directions(job: Job, staging: Path) -> tuple[Transform, dict[str, Any]]:
    """Return the transform by the directions of the rows, and what was measured on the way."""
    choices, items = job.choices, Moments.load(staging / MOMENTS)
    directions = Directions.of(items, row_moments(job))
    whole = directions.transform(directions.rank, BALANCE)
    dims = _offered(job, directions)
    recalls = (
        recall_by_dim(whole, dims, job.item_vectors, _rows(job, "recall by dimension"), job.options.k) if dims else {}
    )
    dim = choices.rows if choices.dim is None else _chosen(job, recalls)
    facts = {
        "texts": items.count,
        "moments_sha256": sha256_file(staging / MOMENTS),
        "shrinkage": items.shrinkage,
        "rank": directions.rank,
        "score_energy_kept": directions.kept(dim),
        "k": job.options.k,
        "recall_by_dim": {str(m): recall for m, recall in recalls.items()},
    }
    if job.options.table.refine != "no" and dim < choices.rows:
        balance = FEEDBACK_BALANCE if choices.rounding == "data" else BALANCE
        return ordered(directions, dim, balance), {**facts, "scan_dim": dim}
    found = transform_for(RowForm(choices.quant, dim, choices.rounding), choices.rows, directions)
    if found is None:
        raise AssertionError("what was measured has a transform")
    return found, facts


def take_up(job: Job, staging: Path) -> None:
    """Give the job the transform that the build has chosen, and the metric that rows are rounded by."""
    if not job.choices.transformed:
        return
    job.transform = Transform.load(staging / TRANSFORM)
    job.scan_dim = read_object(staging / CALIBRATION_REPORT, fix=f"Remove {staging} and build again")["dim"]["chosen"]
    if job.choices.rounding == "data":
        metric = Moments.load(staging / MOMENTS).metric()
        job.metric = job.transform.items @ metric @ job.transform.items.T


def row_moments(job: Job) -> Moments:
    """Return the moments of up to :data:`ROWS_MEASURED` user rows."""
    return Moments.of(rows for rows, _ in _rows(job, "moments of user rows"))


def _rows(job: Job, stage: str) -> Iterator[tuple[F32, F32 | None]]:
    users = job.reference.users
    done, total = 0, min(users.rows, ROWS_MEASURED)
    for _, rows, bias in users.spread_chunks(ROWS_MEASURED):
        yield rows, bias
        done += len(rows)
        job.progress(stage, min(done, total), total)


def _offered(job: Job, directions: Directions) -> list[int]:
    dim, rank = job.choices.dim, directions.rank
    if dim is None:
        return []
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
    if job.choices.dim != "auto":
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
    dim, found = report["dim"], {}
    if dim["requested"] is not None:
        chosen = f"{dim['chosen']} of {dim['of']}" + (" (chosen by --dim auto)" if dim["requested"] == "auto" else "")
        recall = report["recall_by_dim"][str(dim["chosen"])]
        found["dimensions kept"] = f"{chosen}; recall@{report['k']} {recall:.4f} before the rows are quantised"
    found["rounding"] = _rounding(report)
    if "texts" in report:
        found["item vectors measured on"] = f"{report['texts']:,} calibration texts"
    return found


def _rounding(report: dict[str, Any]) -> str:
    if report["rounding"] == "data":
        return "by data, so that the scores of calibration texts change least"
    few = report["too_few_texts"]
    return "to the nearest" + (
        f": the {few:,} texts beyond those of parity are fewer than dimensions" if few is not None else ""
    )
