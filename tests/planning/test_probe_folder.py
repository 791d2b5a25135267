from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fllm_export.planning.probe_folder import PREFIX, probe_folder

KILLED = """
import os, pathlib, signal, sys
from fllm_export.planning.probe_folder import probe_folder
with probe_folder(pathlib.Path(sys.argv[1])) as place:
    (place / "table").mkdir()
    (place / "table" / "rows").write_bytes(b"rows")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_probe_left_is_removed_and_what_runs_is_not(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    other = tmp_path / f"{PREFIX}note"
    other.write_text("not a directory")
    with probe_folder(tmp_path) as first:
        assert not left.exists()
        with probe_folder(tmp_path) as second:
            assert first.is_dir()
            assert second.is_dir()
            assert first != second
    assert list(tmp_path.iterdir()) == [other]


def test_a_probe_that_fails_leaves_nothing(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ZeroDivisionError), probe_folder(tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_without_locks_a_probe_works_and_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", refuses)
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    with probe_folder(tmp_path) as place:
        assert place.is_dir()
    assert list(tmp_path.iterdir()) == [left]
