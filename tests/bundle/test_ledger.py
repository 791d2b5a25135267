from __future__ import annotations

from pathlib import Path

import pytest

from fllm_export import UsageError
from fllm_export.bundle.ledger import Ledger, step_key


def test_a_step_is_done_while_its_files_are_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "out.bin"
    file.write_bytes(b"result")
    with Ledger(tmp_path) as ledger:
        ledger.record("work", "key", [file])
    again = Ledger(tmp_path)
    assert again.is_done("work", "key")
    assert not again.is_done("work", "another key")
    assert not again.is_done("other work", "key")
    file.write_bytes(b"resulT")
    assert not Ledger(tmp_path).is_done("work", "key")


def test_two_builds_do_not_share_a_directory(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(UsageError, match="another build is running"), Ledger(tmp_path):
        pass
    with Ledger(tmp_path):
        pass


def test_closing_leaves_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record("work", "key", [])
        ledger.close()
    assert not list(tmp_path.iterdir())


def test_keys_depend_on_every_input() -> None:
    keys = {step_key("a", 1), step_key("a", 2), step_key("b", 1), step_key("a", {"x": 1}), step_key("a")}
    assert len(keys) == 5
