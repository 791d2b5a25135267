"""A finished point: what was measured, and all that it takes to compare it with others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

SCHEMA = "fllm-export/sweep-point"
VERSION = 1

OWN = "fllm-export"
"""The system of our own points; those of other libraries have the library's name."""


@dataclass(frozen=True)
class Measured:
    """The figures of a point.

    Attributes:
        recall: mean recall@k over the items, against the fp32 ranking; rows count by their score.
        recall_at_10: the same at depth 10 (at k, where k is smaller).
        worst_recall: smallest recall@k of an item.
        coverage: mean share of the rows that were scored, or proven not to matter; below 1 only with a budget.
        median_ms: milliseconds of a call: median over calls of each call's median over runs.
        median_low_ms: lower end of the 95 % interval of the median.
        median_high_ms: upper end.
        p99_ms: 99 % quantile over calls of each call's median over runs.
        items_per_s: items per second, one call after the other.
        runs: runs that were timed.
        calls: different calls of each run.
        build_s: seconds that the table or the index took to build.
        bytes_per_user: bytes of the table's files per row; for other libraries, the memory that the index takes,
            without the fp32 rows that it was built from.
        yardstick_ms: median of a plain fp32 scan of the first rows by NumPy, once after each run: where it differs
            between points, the machine was busy.
        load: load average of the last minute at the end.
    """

    recall: float
    recall_at_10: float
    worst_recall: float
    coverage: float
    median_ms: float
    median_low_ms: float
    median_high_ms: float
    p99_ms: float
    items_per_s: float
    runs: int
    calls: int
    build_s: float
    bytes_per_user: float
    yardstick_ms: float
    load: float


@dataclass(frozen=True)
class Conditions:
    """What the points of one run share; figures of other conditions are not comparable without a second thought.

    Attributes:
        k: depth of the ranking.
        machine: see :func:`fllm_export.sweep.machine.machine`.
        software: see :func:`fllm_export.sweep.machine.software`.
        subject: see :attr:`fllm_export.sweep.subject.Subject.facts`.
    """

    k: int
    machine: Mapping[str, Any]
    software: Mapping[str, Any]
    subject: Mapping[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 of everything here and of the schema's version."""
        text = json.dumps([SCHEMA, VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Record:
    """A finished point.

    Attributes:
        point: its name.
        system: :data:`OWN`, or the name of another library.
        axes: the value of each axis by name; for another library its settings, ``batch`` and ``threads``.
        measured: the figures.
        conditions: :attr:`Conditions.key` of the run.
        finished: when, UTC.
    """

    point: str
    system: str
    axes: Mapping[str, Any]
    measured: Measured
    conditions: str
    finished: str

    @property
    def own(self) -> bool:
        """Whether it is a point of this library."""
        return self.system == OWN

    def line(self, conditions: Conditions) -> str:
        """Return the record as a line of JSON, with all conditions written out."""
        document = {"schema": SCHEMA, "version": VERSION, **asdict(self), "about": asdict(conditions)}
        return json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Record:
        """Return the record of a line.

        Raises:
            KeyError, TypeError, ValueError: it is something else, or of another version.
        """
        if document["schema"] != SCHEMA or document["version"] != VERSION:
            raise ValueError("another schema")
        values = {field.name: document[field.name] for field in fields(cls)}
        return cls(**{**values, "measured": Measured(**values["measured"])})
