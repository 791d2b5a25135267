"""Which form of rows to choose at a size: by measuring a few of them on a line of growing dimensions per codec."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fllm_export.calibration.row_form import RowForm

SURE = 2.0
"""Standard errors that a recall must be above what is required."""

_STEP = 2.0**-0.25


@dataclass(frozen=True)
class Sized:
    """A form and what it takes.

    Attributes:
        form: the form.
        bytes: of the table's files per user.
    """

    form: RowForm
    bytes: float


@dataclass(frozen=True)
class Tried:
    """A form that was measured.

    Attributes:
        form: the form.
        bytes: of the table's files per user.
        recall: mean recall@k of the texts that choose.
        margin: standard error of the difference between that mean and the one of the held-out texts.
    """

    form: RowForm
    bytes: float
    recall: float
    margin: float

    @property
    def sure(self) -> float:
        """The recall that held-out texts will reach too, but for chance: :data:`SURE` standard errors below."""
        return self.recall - SURE * self.margin


Line: TypeAlias = Sequence[Sized]
"""Forms of one codec and one rounding, of ascending dimension: larger ones rank no worse, but for chance."""

Measure: TypeAlias = Callable[[Sized], Tried]


def best_within(lines: Sequence[Line], most: float, measure: Measure) -> list[Tried]:
    """Return the forms that were measured to find the best one of at most ``most`` bytes; empty where none is so small.

    On each line the largest form that is small enough is measured, then smaller ones in steps of four per octave for
    as long as they rank better.
    """
    return [one for line in lines for one in _descended([one for one in line if one.bytes <= most], measure)]


def _descended(line: Line, measure: Measure) -> list[Tried]:
    tried: list[Tried] = []
    while line:
        tried.append(measure(line[-1]))
        if len(tried) > 1 and tried[-1].recall <= tried[-2].recall:
            break
        below = tried[-1].form.dim * _STEP
        line = [one for one in line if one.form.dim <= below]
    return tried


def smallest_with(lines: Sequence[Line], recall: float, measure: Measure) -> list[Tried]:
    """Return the forms that were measured to find the smallest one whose :attr:`Tried.sure` is at least ``recall``.

    On each line its largest form smaller than the best one so far is measured, and if that is good enough, the smallest
    good one is found by halving.
    """
    tried: list[Tried] = []
    limit = math.inf
    for line in lines:
        found = _halved([one for one in line if one.bytes < limit], recall, measure)
        limit = min([limit, *(one.bytes for one in found if one.sure >= recall)])
        tried += found
    return tried


def _halved(line: Line, recall: float, measure: Measure) -> list[Tried]:
    if not line:
        return []
    tried = [measure(line[-1])]
    # The smallest form that is good enough is one of those from low to high, and the one at high is good enough.
    low, high = 0, len(line) - 1 if tried[0].sure >= recall else 0
    while low < high:
        middle = (low + high) // 2
        tried.append(measure(line[middle]))
        if tried[-1].sure >= recall:
            high = middle
        else:
            low = middle + 1
    return tried


def front(tried: Sequence[Tried]) -> list[Tried]:
    """Return the forms that no other one beats, by ascending bytes: none that is as small ranks as well."""
    found: list[Tried] = []
    for one in sorted(tried, key=lambda each: (_size(each), -each.recall, each.bytes)):
        if not found or one.recall > found[-1].recall:
            found.append(one)
    return found


def chosen_within(tried: Sequence[Tried]) -> Tried:
    """Return the form with the highest recall; of equal ones the smallest."""
    return max(tried, key=lambda one: (one.recall, -one.bytes))


def chosen_smallest(tried: Sequence[Tried], recall: float) -> Tried | None:
    """Return the smallest form that is sure to have ``recall``, of equally small ones the best; None without one."""
    good = [one for one in tried if one.sure >= recall]
    return min(good, key=lambda one: (_size(one), -one.recall, one.bytes)) if good else None


def _size(one: Tried) -> float:
    """Return bytes per user as they are printed: names in the headers of files differ by a few bytes of the whole."""
    return round(one.bytes, 1)
