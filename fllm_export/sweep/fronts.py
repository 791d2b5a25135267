"""Pareto fronts: which points nothing else beats, and for each other point one that does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fllm_export.sweep.record import Record


@dataclass(frozen=True)
class Fronts:
    """Where each point stands, by its name.

    Attributes:
        latency: over recall and median latency: the point of the front that dominates this one, or None on the front.
            Only calls that give the same are compared: points of one batch size, thread count and log-probs mode.
        bytes: the same over recall and bytes per user, of all points.
    """

    latency: Mapping[str, str | None]
    bytes: Mapping[str, str | None]


def fronts(records: Sequence[Record]) -> Fronts:
    """Return the fronts of a sweep's records."""
    latency: dict[str, str | None] = {}
    for group in groups(records).values():
        latency |= _named(group, lambda record: record.measured.median_ms)
    return Fronts(latency, _named(records, lambda record: record.measured.bytes_per_user))


def groups(records: Sequence[Record]) -> dict[tuple[int, int, str], list[Record]]:
    """Return records by batch, threads and log-probs mode: what a caller gets, and with what."""
    found: dict[tuple[int, int, str], list[Record]] = {}
    for record in records:
        key = (record.axes["batch"], record.axes["threads"], record.axes["log_probs"])
        found.setdefault(key, []).append(record)
    return found


def dominators(recalls: Sequence[float], costs: Sequence[float]) -> list[int | None]:
    """Return for each point the number of one on the front that dominates it, or None if it is on the front itself.

    A point dominates another if its recall is at least as high and its cost at most as high, and one of the two is
    better. Of several, the one with the highest recall is named. Equal points do not dominate each other.
    """
    order = sorted(range(len(recalls)), key=lambda at: (costs[at], -recalls[at]))
    found: list[int | None] = [None] * len(order)
    best: int | None = None
    for at in order:
        if best is None or recalls[at] > recalls[best]:
            best = at
        elif (recalls[at], costs[at]) != (recalls[best], costs[best]):
            found[at] = best
    return found


def _named(records: Sequence[Record], cost: Callable[[Record], float]) -> dict[str, str | None]:
    found = dominators([record.measured.recall for record in records], [cost(record) for record in records])
    return {record.point: None if at is None else records[at].point for record, at in zip(records, found, strict=True)}
