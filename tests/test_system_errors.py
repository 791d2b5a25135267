from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fllm_export.errors import BudgetError, UsageError
from fllm_export.system_errors import check_place, limit_error, path_error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
        RuntimeError("std::bad_alloc"),
        ValueError("Cannot allocate memory (os error 12)"),
    ],
)
def test_limits_of_the_system(error: Exception) -> None:
    found = limit_error(error, "a.bin")
    assert isinstance(found, BudgetError)
    assert str(found).startswith("a.bin: ")
    assert found.fix


NO_LIMITS = [FileNotFoundError(errno.ENOENT, "no"), OSError("no number"), ValueError("x"), OSError(errno.EIO, "x")]


@pytest.mark.parametrize("error", NO_LIMITS)
def test_what_is_no_limit(error: Exception) -> None:
    assert limit_error(error, "a.bin") is None


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "none").read_bytes()
    found = path_error(caught.value)
    assert isinstance(found, UsageError)
    assert str(found).startswith(f"{tmp_path / 'none'}: No such file or directory")
    assert path_error(OSError(errno.EIO, "Input/output error")) is None


def test_places_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("none")
    for good in (tmp_path / "a" / "b" / "c", tmp_path, tmp_path / "file"):
        check_place(good, "out")
    for bad, words in (
        (tmp_path / "file" / "b" / "c", f"and {tmp_path / 'file'} is a file"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "link" / "x", f"{tmp_path / 'link'} is a link to nothing"),
    ):
        with pytest.raises(UsageError, match=f"out is {bad}") as caught:
            check_place(bad, "out")
        assert words in str(caught.value)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match=f"{tmp_path} cannot be written"):
        check_place(tmp_path / "b", "out")
