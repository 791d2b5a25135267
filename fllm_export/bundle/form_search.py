"""The step of a build that searches the form of rows for a size: codec, dimension and rounding, by measured recall."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.bundle.bundle import SIZE_REPORT
from fllm_export.bundle.calibration import row_moments
from fllm_export.bundle.job import Job
from fllm_export.bundle.trial_journal import TrialJournal
from fllm_export.calibration.directions import Directions
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.size_search import (
    SURE,
    Measure,
    Sized,
    Tried,
    best_within,
    chosen_smallest,
    chosen_within,
    smallest_with,
)
from fllm_export.calibration.trials import Trials
from fllm_export.calibration.user_sample import UserSample
from fllm_export.errors import ParityError
from fllm_export.files import publish_json
from fllm_export.manifest import MOMENTS
from fllm_export.strict_json import read_object

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_RUN_ROWS = 4096


def key(job: Job) -> str:
    """Return a hash of everything that decides the search."""
    return job.source_key("form of rows", *job.search_choices, *job.measured_by)


def search(job: Job, staging: Path) -> list[Path]:
    """Measure forms of rows on the texts that choose, and write which one is chosen and its recall on the others.

    Raises:
        ParityError: no form has the required recall; the report is written first. It has no ``chosen`` where no form
            is sure to have it.
    """
    report = staging / SIZE_REPORT
    report.unlink(missing_ok=True)
    size = job.requested.size
    if size is None:
        return []
    trials, rank, items = _trials(job, staging)
    lines, journal = job.forms(rank).lines(), TrialJournal(staging, key(job))
    choosing, held_out = slice(0, len(job.choice_texts)), slice(len(job.choice_texts), None)

    def measure(sized: Sized) -> Tried:
        found = journal.get(sized.form)
        if found is None:
            job.progress(f"measuring {sized.form}", 0, 1)
            found = _summary(trials.recalls(sized.form, choosing), len(job.sample))
            journal.add(sized.form, *found)
            job.progress(f"measuring {sized.form}", 1, 1)
        return Tried(sized.form, sized.bytes, *found)

    tried = _walk(job, lines, measure)
    publish_json(report, _report(job, tried, trials.sample, items))
    chosen = _chosen(job, tried)
    held = float(trials.recalls(chosen.form, held_out).mean())
    found = {**_facts(chosen), "held_out_recall": held}
    publish_json(report, {**_report(job, tried, trials.sample, items), "chosen": found})
    _check(job, chosen)
    journal.close()
    return [report]


def take_up(job: Job, staging: Path) -> None:
    """Give the job the form that was chosen."""
    if job.requested.size is not None:
        chosen = read_object(staging / SIZE_REPORT)["chosen"]
        job.settle(RowForm(chosen["quant"], chosen["dim"], chosen["rounding"]))


def _walk(job: Job, lines: Sequence[Sequence[Sized]], measure: Measure) -> list[Tried]:
    most = None if job.requested.size is None else job.requested.size.most
    if most is None:
        return smallest_with(lines, job.requested.min_recall, measure)
    return best_within(lines, most, measure)


def _chosen(job: Job, tried: Sequence[Tried]) -> Tried:
    best = chosen_within(tried)
    if job.requested.size is None or job.requested.size.most is not None:
        return best
    found = chosen_smallest(tried, job.requested.min_recall)
    if found is None:
        raise ParityError(
            f"no form of rows is sure to have recall@{job.requested.k} {job.requested.min_recall:g} on texts to come; "
            f"the best, {best.form}, has {best.recall:.4f} with a standard error of {best.margin:.4f}",
            expected=f"at least {SURE:g} standard errors more",
            fix="Lower --min-recall, or give more item texts to --calibration",
        )
    return found


def _check(job: Job, chosen: Tried) -> None:
    required = job.requested.min_recall
    if chosen.recall + SURE * chosen.margin < required:
        raise ParityError(
            f"the best form of at most {job.requested.size.most if job.requested.size else 0} bytes per user, "
            f"{chosen.form}, has recall@{job.requested.k} {chosen.recall:.4f}",
            expected=f"at least {required:g}",
            fix="Lower --min-recall, or raise --bytes-per-user; with auto, it becomes the smallest that is enough",
        )


def _trials(job: Job, staging: Path) -> tuple[Trials, int, Moments]:
    """Return what measures forms, the rank of the scores, and the moments of the item vectors."""
    items = Moments.load(staging / MOMENTS)
    directions = Directions.of(items, row_moments(job))
    stage = "vectors of the choosing texts"
    job.progress(stage, 0, 1)
    z = np.concatenate([job.reference.item_vectors(job.choice_texts), job.item_vectors])
    job.progress(stage, 1, 1)
    users = job.reference.users
    sample = UserSample.draw(z, job.options.k, users.rows, lambda: _rows(job), lambda numbers: _gather(job, numbers))
    return Trials(sample, z, items, directions), directions.rank, items


def _rows(job: Job) -> Iterator[tuple[F32, F32 | None]]:
    users, done = job.reference.users, 0
    for _, rows, bias in users.labelled_chunks():
        yield rows, bias
        done += len(rows)
        job.progress("fp32 ranking for the search", done, users.rows)


def _gather(job: Job, numbers: I64) -> tuple[F32, F32 | None]:
    """Return rows and biases of ascending numbers, read in runs of neighbours."""
    users = job.reference.users
    cuts = np.flatnonzero((np.diff(numbers) > 1) | (np.arange(1, len(numbers)) % _RUN_ROWS == 0)) + 1
    runs = [(int(run[0]), len(run)) for run in np.split(numbers, cuts)]
    rows = np.concatenate([users.read(first, count) for first, count in runs])
    return rows, None if users.bias is None else users.bias[numbers]


def _summary(recalls: npt.NDArray[np.float64], held_out: int) -> tuple[float, float]:
    """Return the mean, and the standard error of its difference from the mean of so many other texts."""
    return float(recalls.mean()), float(recalls.std() * math.sqrt(1 / len(recalls) + 1 / held_out))


def _report(job: Job, tried: Sequence[Tried], sample: UserSample, items: Moments) -> dict[str, Any]:
    """Return what was measured, without what was chosen."""
    asked = job.requested
    size = asked.size.bytes_per_user if asked.size is not None else None
    return {
        "requested": size,
        "required_recall": asked.min_recall if size == "auto" else None,
        "k": asked.k,
        "texts": {"measured": items.count, "choosing": len(job.choice_texts), "held_out": len(job.sample)},
        "users": {"measured": len(sample.rows), "of": sample.users, "depth": sample.depth},
        "tried": [_facts(one) for one in tried],
    }


def _facts(tried: Tried) -> dict[str, Any]:
    return {**asdict(tried.form), "bytes": tried.bytes, "recall": tried.recall, "margin": tried.margin}
