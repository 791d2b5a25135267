"""Lines survive one by one: what a kill cut short does not count, and later lines follow whole ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from fllm_export.line_journal import append_line, whole_lines


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert whole_lines(path, repair=True) == []
    for line in ("one", "two", "zw\u00f6lf"):
        append_line(path, line + "\n")
    assert [line.decode() for line in whole_lines(path, repair=False)] == ["one", "two", "zw\u00f6lf"]


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_line_that_was_cut_short_goes(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, "first\n")
    whole = path.read_bytes() + b"second\n"
    path.write_bytes(whole[:-cut])
    assert whole_lines(path, repair=False) == [b"first"]
    assert path.read_bytes() == whole[:-cut]
    assert whole_lines(path, repair=True) == [b"first"]
    append_line(path, "third\n")
    assert path.read_bytes() == b"first\nthird\n"
