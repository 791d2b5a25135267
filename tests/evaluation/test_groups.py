from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.evaluation.groups import GROUPS, Groups


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_groups_are_ranges_that_do_not_overlap_and_hold_every_item(numbers):
    values = np.array(numbers, np.int64)
    found = Groups.of("x", values)
    assert 1 <= len(found.labels) <= GROUPS
    assert set(found.members) == set(range(len(found.labels)))
    for group in range(len(found.labels) - 1):
        assert values[found.members == group].max() < values[found.members == group + 1].min()


def test_quintiles_of_different_numbers_are_equal_in_size():
    found = Groups.of("x", np.arange(1000, 1100))
    assert np.bincount(found.members) == pytest.approx([20] * 5, abs=1)
    assert found.labels[-1].endswith(" to 1,099")
    assert found.means(np.arange(100.0))[0] == pytest.approx(np.arange(100.0)[found.members == 0].mean())
