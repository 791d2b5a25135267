from __future__ import annotations

import pytest

from fllm_export.coldstart.loop_journal import FILE_NAME, LoopJournal, only_evaluation_in
from fllm_export.errors import UsageError


def test_lines_come_back_under_the_same_conditions_alone(tmp_path):
    journal = LoopJournal(tmp_path, "one")
    journal.add("arm", 0, {"x": 0.1})
    assert journal.get("arm", 0) == {"x": 0.1}
    journal = LoopJournal(tmp_path, "two")
    assert journal.get("arm", 0) is None
    journal.add("arm", 0, {"x": 0.2})
    journal = LoopJournal(tmp_path, "one")
    assert journal.get("arm", 0) == {"x": 0.1}
    assert journal.get("arm", 1) is None


def test_a_line_that_was_cut_short_is_removed_and_written_again(tmp_path):
    journal = LoopJournal(tmp_path, "one")
    journal.add("arm", 0, {"x": 0.1})
    journal.add("arm", 1, {"x": 0.2})
    file = tmp_path / FILE_NAME
    file.write_bytes(file.read_bytes()[:-9])
    journal = LoopJournal(tmp_path, "one")
    assert journal.get("arm", 0) == {"x": 0.1}
    assert journal.get("arm", 1) is None
    journal.add("arm", 1, {"x": 0.3})
    assert LoopJournal(tmp_path, "one").get("arm", 1) == {"x": 0.3}


def test_two_evaluations_do_not_share_a_directory(tmp_path):
    with only_evaluation_in(tmp_path):
        second = only_evaluation_in(tmp_path)
        with pytest.raises(UsageError, match="another evaluation is running"):
            second.__enter__()
    with only_evaluation_in(tmp_path):
        pass
