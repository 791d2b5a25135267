"""What a bundle carries so that its users can be learned without training: the rule, and the users' histories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.bundle.job import Job
from fllm_export.calibration.transform import Transform
from fllm_export.checkpoint.user_rule import UserRule
from fllm_export.manifest import LEARNER, TABLE_FOLDER
from fllm_export.table.file_names import histories_name
from fllm_export.table.head_learner import HeadLearner
from fllm_export.table.histories import Histories, UserHistories, ragged, write_histories
from fllm_export.table.layout import ShardEntry, TableLayout
from fllm_export.table.learner import Learner

_BLOCK_ITEMS = 4096
_FIRST = "00000000"
"""Stands for the random part in the name of the histories that a table begins with."""


def interaction_facts(layout: TableLayout) -> dict[str, str]:
    """What there is to say of the users' interactions in a bundle, in a line for people; empty where there are none."""
    if not layout.histories:
        return {}
    size = sum(file.bytes for file in layout.histories)
    told = f"which items each user liked, {size:,} bytes, for fllm-export users learn"
    return {"interactions": f"{told}; a checkpoint without {LEARNER} gives a bundle without them"}


def write_learner(job: Job, staging: Path, layout: TableLayout) -> list[Path]:
    """Write the learner, and the histories into the user table, and return the learner's file.

    Nothing is written for a checkpoint without a rule, or a table with refinement rows, whose users cannot be learned.
    """
    path, rule = staging / LEARNER, job.checkpoint.rule
    path.unlink(missing_ok=True)
    if rule is None or layout.refinement is not None:
        return []
    _learner(rule, job.transform).save(path)
    folder = staging / TABLE_FOLDER
    entry = _write_histories(folder, rule, job.checkpoint.users.ids)
    replace(layout, histories=() if entry is None else (entry,)).save(folder)
    return [path]


def _learner(rule: UserRule, transform: Transform | None) -> Learner | HeadLearner:
    """Return what makes rows in the dimensions of the table."""
    given, head = rule.contributions, rule.head
    contributions = given if head is not None else _stored(given, transform)
    learner = Learner.of(np.array(rule.item_ids), contributions, rule.user_power, rule.activity)
    return learner if head is None else HeadLearner.of(learner, head.mapped(lambda rows: _stored(rows, transform)))


def _stored(rows: npt.NDArray[np.float32], transform: Transform | None) -> npt.NDArray[np.float32]:
    """Return rows [n, d] in the dimensions of the table."""
    if transform is None:
        return rows
    parts = [transform.rows(rows[first : first + _BLOCK_ITEMS]) for first in range(0, len(rows), _BLOCK_ITEMS)]
    return np.concatenate(parts)


def _write_histories(folder: Path, rule: UserRule, ids: npt.NDArray[np.int64] | None) -> ShardEntry | None:
    users = np.arange(len(rule.starts) - 1) if ids is None else ids
    starts, items = np.array(rule.starts), np.array(rule.items)
    order = np.argsort(users, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        sizes = np.diff(starts)[order]
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        users, starts, items = users[order], begins, items[ragged(starts[:-1][order], sizes)]
    sizes = np.diff(starts)
    known = Histories([UserHistories(users, starts, items)])
    return write_histories(folder / histories_name(1, _FIRST), known, users[sizes > 0], sizes[sizes > 0])
