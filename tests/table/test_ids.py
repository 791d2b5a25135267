from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export import UsageError
from fllm_export.table import ids as module
from fllm_export.table.ids import check_unique


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60), max_size=12), min_size=1, max_size=5), st.integers(1, 7))
def test_repeats_are_found_exactly_when_there_are_any(parts: list[list[int]], bucket: int) -> None:
    everything = [i for part in parts for i in part]
    arrays = [np.sort(np.array(part, np.int64)) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BUCKET_ROWS", bucket)
        if len(set(everything)) == len(everything):
            check_unique(arrays)
        else:
            with pytest.raises(UsageError, match="occurs more than once"):
                check_unique(arrays)
