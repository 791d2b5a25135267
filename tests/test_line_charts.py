from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.line_charts import Axis, Line, Mark, lines

from .drawn import check


def test_points_stand_where_the_axes_say():
    x, y = Axis("x", 0, 10, {0: "0", 10: "10"}), Axis("y <unit>", 0, 1, {0: "0", 1: "1"})
    chart = lines("a & b", [Line([(0, 0), (5, 0.25), (20, 2)], 0, marked=True)], x, y)
    check(chart)
    assert 'points="0.0,1000.0 500.0,750.0 1000.0,0.0"' in chart
    assert len(re.findall("<circle", chart)) == 3
    assert "y &lt;unit&gt;" in chart


def test_a_logarithmic_axis_has_equal_distances_for_equal_ratios():
    axis = Axis.decades("p", [0.002, 0.3])
    assert (axis.low, axis.high) == (0.001, 1.0)
    assert axis.share(0.01) - axis.share(0.001) == pytest.approx(axis.share(1) - axis.share(0.1))
    assert axis.share(0) == 0


@given(st.lists(st.floats(1e-12, 1), min_size=1, max_size=20))
def test_decades_hold_every_value_with_few_ticks(values):
    axis = Axis.decades("p", values)
    assert axis.low <= min(values) * (1 + 1e-9)
    assert axis.high >= max(values) * (1 - 1e-9)
    assert 2 <= len(axis.ticks) <= 8
    assert len(set(axis.ticks.values())) == len(axis.ticks)


def test_labels_of_ratios_are_short():
    axis = Axis.ratios("items per second", [700.0, 30_000.0])
    assert list(axis.ticks.values()) == ["500", "1 k", "2 k", "5 k", "10 k", "20 k", "50 k"]
    assert list(Axis.ratios("bytes", [0.004, 3e6]).ticks.values())[-2:] == ["1 M", "5 M"]


def test_named_places_lie_inside_the_axis_in_order():
    axis = Axis.named("group", ["a", "b", "c"])
    shares = [axis.share(at) for at in range(3)]
    assert 0 < shares[0] < shares[1] < shares[2] < 1
    assert shares[1] == pytest.approx(0.5)
    assert list(axis.ticks.values()) == ["a", "b", "c"]


DETAILS = ["int8", "recall 0.99", "5 ms"]


@pytest.mark.parametrize(
    ("places", "side", "top"),
    [
        ([(1, 1), (9, 9)], "told", True),
        ([(1, 9), (9, 1)], "told side", True),
        ([(1, 9), (2, 8), (9, 9)], "told side", False),
        ([(1, 9), (9, 9), (9, 1)], "told", False),
    ],
)
def test_details_stand_inside_the_chart_where_fewest_marks_are(places, side, top):
    axis = Axis("x", 0, 10, {0: "0", 10: "10"})
    chart = lines("marks", [], axis, axis, [Mark(x, y, 0, DETAILS) for x, y in places])
    check(chart)
    found = re.findall(r'<text class="(told[^"]*)" x="([\d.]+)%" y="(\d+)">', chart)
    assert {name for name, _, _ in found} == {side}
    assert len(found) == len(places) * len(DETAILS)
    heights = [int(height) for _, _, height in found]
    assert (max(heights) < 160) == top == (min(heights) < 160)
    assert min(heights) > 30
    assert max(heights) < 290


def test_no_room_is_left_below_for_details():
    axis = Axis("x", 0, 10, {0: "0", 10: "10"})
    heights = [
        int(re.search(r'height="(\d+)" role', lines("m", [], axis, axis, [Mark(1, 1, 0, details)]))[1])
        for details in ([], DETAILS[:1], DETAILS * 3)
    ]
    assert heights[1] == heights[2] < heights[0] + 30
