"""The curves of a sweep: throughput, latency and bytes, each against recall."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from fllm_export.line_charts import SHAPES, Axis, Line, Mark, key, lines
from fllm_export.sweep.fronts import dominators
from fllm_export.sweep.record import OWN, Record
from fllm_export.sweep.wording import details
from fllm_export.table.codec_names import CODEC_NAMES

Value = Callable[[Record], float]

_COLOURS = (0, 1, 2, 3, 5, 6, 7, 8, 4)
_TICKS = sorted(-math.log10(part * 10.0**power) for power in range(-9, 0) for part in (1, 2, 5, 10))
_FINE = 1.6
"""Powers of ten that an axis of recall may span and still have ticks between them."""
_FIRST = 0.2
"""Powers of ten from the first tick to a recall of 1, at least."""


@dataclass(frozen=True)
class Series:
    """Points that share a colour and a shape: those of one codec, or of another library.

    Attributes:
        name: of the codec or the library.
        colour: number of its colour.
        shape: a name of :data:`SHAPES`.
    """

    name: str
    colour: int
    shape: str


def series_of(records: Sequence[Record]) -> dict[str, Series]:
    """Return the series by name: codecs in their order, then other libraries as they come."""
    own = {record.axes["quant"] for record in records if record.own}
    names: list[str] = [name for name in CODEC_NAMES if name in own]
    names += dict.fromkeys(record.system for record in records if not record.own)
    shapes = [shape for shape in SHAPES if shape != "circle"]
    others = 0
    found: dict[str, Series] = {}
    for number, name in enumerate(names):
        shape = "circle"
        if name not in own:
            shape, others = shapes[others % len(shapes)], others + 1
        found[name] = Series(name, _COLOURS[number % len(_COLOURS)], shape)
    return found


def series_name(record: Record) -> str:
    """Return the name of a record's series."""
    return str(record.axes["quant"]) if record.system == OWN else record.system


@dataclass(frozen=True)
class Curves:
    """Charts of some records, with the numbers and the colours that a whole page shares.

    Attributes:
        numbers: number of each point, by its name.
        series: by name.
        k: depth of the recall.
        asked: number of items.
    """

    numbers: Mapping[str, int]
    series: Mapping[str, Series]
    k: int
    asked: int

    def chart(
        self, name: str, records: Sequence[Record], title: str, value: Value, *, higher: bool, told: bool = True
    ) -> str:
        """Return a chart of a value against recall.

        Each series has a line through the points that no other point of it beats. A dotted line joins those that no
        point at all beats, whose marks are filled.

        Args:
            name: what the chart shows, for readers that do not see it.
            records: at least one.
            title: of the vertical axis, with the unit.
            value: what it measures, above 0.
            higher: whether higher values are better.
            told: whether marks tell what they are.
        """
        cost: Value = (lambda record: -value(record)) if higher else value
        x = self.recall_axis(records)
        y = Axis.ratios(title, [value(record) for record in records])
        front = _front(records, cost)
        drawn = [self._line([records[at] for at in front], value, None)]
        for series in self.series.values():
            own = [record for record in records if series_name(record) == series.name]
            drawn.append(self._line([own[at] for at in _front(own, cost)], value, series.colour))
        # Those of the front come last, so that no other mark hides them.
        order = sorted(range(len(records)), key=lambda at: at in front)
        marks = [self._mark(records[at], value, filled=at in front, told=told) for at in order]
        return lines(name, drawn, x, y, marks)

    def _line(self, records: Sequence[Record], value: Value, colour: int | None) -> Line:
        return Line(sorted((self.nines(record.measured.recall), value(record)) for record in records), colour)

    def _mark(self, record: Record, value: Value, *, filled: bool, told: bool) -> Mark:
        series = self.series[series_name(record)]
        words = details(record, self.numbers[record.point], self.k) if told else []
        at = self.nines(record.measured.recall), value(record)
        return Mark(*at, series.colour, words, series.shape, filled)

    def nines(self, recall: float) -> float:
        """Return where a recall stands: the negative decimal logarithm of what is missed.

        A recall of 1 stands where half a row of all that were asked for is missed, the least that can be told.
        """
        return -math.log10(max(1.0 - recall, self._least))

    def recall_axis(self, records: Sequence[Record]) -> Axis:
        """Return an axis on which each step to the right halves what is missed, or nearly, with at least two ticks."""
        places, end = [self.nines(record.measured.recall) for record in records], self.nines(1.0)
        first = min(*places, end - _FIRST)
        decades = max(places) - first > _FINE
        steps = [place for place in _TICKS if not decades or math.isclose(place, round(place), abs_tol=1e-9)]
        low = max((place for place in steps if place <= first + 1e-9), default=0.0)
        second = min((place for place in steps if place > low + 1e-9), default=end)
        high = min(max(*places, second), end)
        ticks = {place: f"{1 - 10**-place:.9g}" for place in steps if low <= place <= high + 1e-9}
        if high >= end:
            ticks = {place: label for place, label in ticks.items() if end - place > 0.14 * (end - low)}
            ticks[end] = "1"
        return Axis(f"recall@{self.k}, by what is missed", low, high, ticks)

    @property
    def _least(self) -> float:
        return 0.5 / (self.asked * self.k)

    def legend(self) -> str:
        """Return the series with their marks."""
        items = "".join(
            f"<li>{key(series.colour, series.shape)}{escape(series.name)}</li>" for series in self.series.values()
        )
        return f'<ul class="legend">{items}</ul>'


def curves_of(records: Sequence[Record], k: int, asked: int) -> Curves:
    """Return the charts of a sweep; points are numbered from 1 in the order of the records."""
    numbers = {record.point: number for number, record in enumerate(records, 1)}
    return Curves(numbers, series_of(records), k, asked)


def _front(records: Sequence[Record], cost: Value) -> list[int]:
    found = dominators([record.measured.recall for record in records], [cost(record) for record in records])
    return [at for at, other in enumerate(found) if other is None]
