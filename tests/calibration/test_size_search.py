from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.size_search import (
    SURE,
    Line,
    Sized,
    Tried,
    best_within,
    chosen_smallest,
    chosen_within,
    front,
    smallest_with,
)

QUANTS = ("int2", "int4", "int8")


class Table:
    """Forms whose recalls grow with the dimension, and a count of how many were measured."""

    def __init__(self, lengths: Sequence[int], seed: int, margin: float = 0.001) -> None:
        generator = np.random.default_rng(seed)
        self.lines: list[Line] = []
        self.recalls: dict[RowForm, float] = {}
        self.asked: list[RowForm] = []
        self.margin = margin
        for quant, length, size in zip(QUANTS, lengths, (0.25, 0.5, 1.0), strict=True):
            forms = [RowForm(quant, 8 * (place + 1), "data") for place in range(length)]
            ceiling = generator.uniform(0.5, 1.0)
            rising = np.sort(generator.uniform(0, ceiling, length))
            self.recalls |= dict(zip(forms, rising.tolist(), strict=True))
            self.lines.append([Sized(form, 12 + size * form.dim) for form in forms])

    def measure(self, sized: Sized) -> Tried:
        self.asked.append(sized.form)
        return Tried(sized.form, sized.bytes, self.recalls[sized.form], self.margin)

    @property
    def all(self) -> list[Tried]:
        found = [Tried(one.form, one.bytes, self.recalls[one.form], self.margin) for line in self.lines for one in line]
        return sorted(found, key=lambda one: one.bytes)


tables = st.builds(Table, st.lists(st.integers(0, 40), min_size=3, max_size=3), st.integers(0, 1 << 20))


@given(tables, st.integers(10, 400))
def test_the_best_within_a_size_is_the_best_of_all(table: Table, most: int) -> None:
    tried = best_within(table.lines, most, table.measure)
    fitting = [one for one in table.all if one.bytes <= most]
    assert fitting != bool(tried) or not fitting
    assert all(one.bytes <= most for one in tried)
    if fitting:
        assert chosen_within(tried).recall == max(one.recall for one in fitting)
        assert len(tried) <= 2 * len(QUANTS)


@given(tables, st.floats(0, 1))
def test_the_smallest_with_a_recall_is_the_smallest_of_all(table: Table, recall: float) -> None:
    tried = smallest_with(table.lines, recall, table.measure)
    good = [one.bytes for one in table.all if one.recall - SURE * table.margin >= recall]
    chosen = chosen_smallest(tried, recall)
    assert (chosen is None) == (not good)
    if chosen is not None:
        assert chosen.bytes == min(good)
    assert len(table.asked) == len(set(table.asked))
    assert len(tried) <= sum(2 + math.ceil(math.log2(len(line))) for line in table.lines if line)


@given(tables)
def test_the_front_holds_what_nothing_beats(table: Table) -> None:
    found = front(table.all)
    beaten = [
        one
        for one in table.all
        if any(
            other.bytes <= one.bytes and other.recall >= one.recall
            for other in table.all
            if (other.bytes, other.recall) != (one.bytes, one.recall)
        )
    ]
    assert not {one.form for one in found} & {one.form for one in beaten}
    assert {(one.bytes, one.recall) for one in found} == {
        (one.bytes, one.recall) for one in table.all if one not in beaten
    }


def test_a_line_is_walked_down_for_as_long_as_it_ranks_better() -> None:
    line = [Sized(RowForm("int2", dim, "nearest"), float(dim)) for dim in (16, 32, 48, 64, 80, 96, 112, 128)]
    recalls = {16: 0.1, 32: 0.5, 48: 0.6, 64: 0.9, 80: 0.8, 96: 0.7, 112: 0.6, 128: 0.65}

    def measure(one: Sized) -> Tried:
        return Tried(one.form, one.bytes, recalls[one.form.dim], 0.0)

    tried = best_within([line], 112.0, measure)
    assert [one.form.dim for one in tried] == [112, 80, 64, 48]
    assert chosen_within(tried).form.dim == 64


def test_of_equal_recalls_the_smaller_form_is_chosen() -> None:
    two = [Tried(RowForm("int8", 32, "nearest"), 44.0, 1.0, 0.0), Tried(RowForm("int4", 32, "nearest"), 30.0, 1.0, 0.0)]
    assert chosen_within(two).form.quant == "int4"
    assert chosen_smallest(two, 1.0) == two[1]
    assert [one.form.quant for one in front(two)] == ["int4"]


def test_a_recall_must_be_sure() -> None:
    near = Tried(RowForm("int8", 32, "nearest"), 44.0, 0.991, 0.001)
    assert near.sure == pytest.approx(0.989)
    assert chosen_smallest([near], 0.99) is None


def test_forms_that_differ_by_the_names_in_headers_are_of_one_size() -> None:
    near = [
        Tried(RowForm("fp8", 8, "nearest"), 25.0451, 0.71, 0.0),
        Tried(RowForm("int8", 8, "nearest"), 25.0452, 0.72, 0.0),
        Tried(RowForm("int2", 32, "nearest"), 25.0453, 0.77, 0.0),
    ]
    assert front(near) == near[2:]
    assert chosen_smallest(near, 0.7) == near[2]
