"""The benchmark of learning measures every number of items, and cleans up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks is not installed

from benchmarks import learning


def test_every_number_of_items_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--dim", "16", "--items", "600", "--users", "40", "--repeats", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["learning", str(tmp_path), *sizes])
    learning.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["items_per_user"] for line in lines] == list(learning.ITEMS_PER_USER)
    for line in lines:
        for name in ("rule", "read", "add", "new", "more"):
            assert line[f"{name}_rows_per_s"] > 0
            assert line[f"{name}_rows_per_cpu_s"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("per_user", [1, 50])
def test_the_second_call_changes_every_user(per_user: int) -> None:
    items, (first, more) = learning.drawn(np.random.default_rng(1), 600, 30, per_user)
    assert len(items) == 30 * per_user
    np.testing.assert_array_equal(np.diff(first.starts), per_user)
    assert more.users.tolist() == first.users.tolist() == list(range(30))
    for user in range(30):
        assert more.items[user] not in items[first.starts[user] : first.starts[user + 1]]
