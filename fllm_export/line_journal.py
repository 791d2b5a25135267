"""Files of lines that grow, one synced line at a time; a line that a crash cut short does not count."""

from __future__ import annotations

import os
from pathlib import Path

from fllm_export.files import publish, sync_directory


def append_line(path: Path, line: str) -> None:
    """Append a line, which ends in a newline, and sync it to disk, with the file's name where the file is new."""
    made = not path.exists()
    with path.open("ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    if made:
        sync_directory(path.parent)


def whole_lines(path: Path, *, repair: bool) -> list[bytes]:
    """Return the lines without their newlines; none where there is no file.

    Args:
        path: the file.
        repair: whether a last line that was cut short is removed, so that lines can be appended.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content) and repair:
        with publish(path) as file:
            file.write(whole)
    return whole.splitlines()
