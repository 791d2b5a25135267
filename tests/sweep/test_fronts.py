from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fllm_export.sweep.fronts import dominators, fronts, groups

from .records import record

few = st.sampled_from([0.5, 0.9, 0.99, 1.0])
pairs = st.tuples(st.one_of(few, st.floats(0, 1)), st.one_of(few, st.floats(0.01, 1e3)))
numbers = st.lists(pairs, min_size=1, max_size=30)


def beats(one, other):
    return one[0] >= other[0] and one[1] <= other[1] and one != other


@given(numbers)
def test_fronts_hold_what_nothing_beats(points):
    found = dominators([recall for recall, _ in points], [cost for _, cost in points])
    for at, point in enumerate(points):
        beaten = any(beats(other, point) for other in points)
        assert (found[at] is not None) == beaten
        if beaten:
            assert beats(points[found[at]], point)
            assert found[found[at]] is None
    assert None in found


@given(numbers, st.randoms())
def test_fronts_do_not_depend_on_the_order(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    first = dominators([recall for recall, _ in points], [cost for _, cost in points])
    again = dominators([points[at][0] for at in order], [points[at][1] for at in order])
    assert {points[at] for at in range(len(points)) if first[at] is None} == {
        points[at] for place, at in enumerate(order) if again[place] is None
    }


def test_calls_that_return_something_else_are_not_compared():
    slow = record("a", recall=0.9, median_ms=5.0, log_probs="exact")
    quick = record("b", recall=0.95, median_ms=1.0, log_probs="none")
    batched = record("c", recall=0.9, median_ms=9.0, batch=8)
    worse = record("d", recall=0.9, median_ms=2.0, bytes_per_user=50.0)
    found = fronts([slow, quick, batched, worse])
    assert found.latency == {"a": None, "b": None, "c": None, "d": "b"}
    assert found.bytes == {"a": "b", "b": None, "c": "b", "d": None}
    assert len(groups([slow, quick, batched, worse])) == 3
