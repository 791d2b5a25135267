"""What a directory is: a checkpoint, a bundle or a user table, each of which has a file that no other has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fllm_export.errors import BundleError


@dataclass(frozen=True)
class DirectoryKind:
    """A kind of directory.

    Attributes:
        name: its word, with the article.
        marker: the file by which it is known.
        use: what can be done with it.
    """

    name: str
    marker: str
    use: str

    def found_at(self, directory: Path) -> bool:
        """Return whether a directory is of this kind."""
        return (directory / self.marker).is_file()


BUNDLE = DirectoryKind(
    "a bundle",
    "manifest.json",
    "`fllm-export query`, `serve`, `bench` and `verify` take a bundle. `build` takes the checkpoint of it",
)
USER_TABLE = DirectoryKind(
    "a user table",
    "table.json",
    "`fllm-export query`, `serve`, `bench` and `verify` take a user table. In Python, UserTable.open opens it",
)
CHECKPOINT = DirectoryKind(
    "a checkpoint",
    "filterllm.json",
    "Run `fllm-export build` first, which takes a checkpoint and makes a bundle of it",
)
KINDS = (USER_TABLE, BUNDLE, CHECKPOINT)


def kind_of(directory: Path) -> DirectoryKind | None:
    """Return what a directory is, or None if it is none of the three."""
    return next((kind for kind in KINDS if kind.found_at(directory)), None)


def check_kind(directory: Path, *expected: DirectoryKind) -> None:
    """Check that a directory is of one of some kinds.

    Raises:
        BundleError: it is not; the error says what it is instead, if it is of another kind, and what takes that.
    """
    if any(kind.found_at(directory) for kind in expected):
        return
    refuse_other_kind(directory, *expected)
    markers = " or ".join(kind.marker for kind in expected)
    raise BundleError(f"{directory} is not {_either(expected)}", expected=f"{markers} in it")


def refuse_other_kind(directory: Path, *expected: DirectoryKind) -> None:
    """Refuse a directory that is of another kind than those expected; one that is of no kind passes.

    Raises:
        BundleError: saying what it is and what takes it.
    """
    found = kind_of(directory)
    if found is not None and found not in expected:
        raise BundleError(f"{directory} is {found.name}", expected=_either(expected), fix=found.use)


def _either(kinds: Sequence[DirectoryKind]) -> str:
    return " or ".join(kind.name for kind in kinds)
