"""A mark beside files that says what they were made of, so that they are made once and never taken for others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fllm_export.files import publish_text


@dataclass(frozen=True)
class Mark:
    """A small file that is removed before some files are written, and written after them.

    So it stands beside whole files of its key alone, wherever a run ends.

    Attributes:
        path: of the mark.
        key: changes with what the files are made of.
        files: what it stands for.
    """

    path: Path
    key: str
    files: tuple[Path, ...]

    def stands(self) -> bool:
        """Return whether the files are there and were made of the same."""
        return all(file.is_file() for file in (self.path, *self.files)) and self.path.read_text() == self.key

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Remove the mark, and write it when the block, which writes the files, has ended without an error."""
        self.path.unlink(missing_ok=True)
        yield
        publish_text(self.path, self.key)
