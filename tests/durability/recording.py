"""Records what a program does to a directory of files, and makes what a power cut may leave of it."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

BLOCK = 4096
_SUBSETS = 5  # of so many changes of names since the last sync of the directory, every combination is tried

Names = dict[str, int]
Contents = dict[int, bytes]


@dataclass
class Moment:
    """The directory as it would be read before one recorded call, and what of it a disk must have kept.

    Attributes:
        call: what came next, for messages.
        names: file names and the numbers of their contents.
        contents: by number.
        kept_names: as of the last sync of the directory.
        kept_contents: as of the last sync of each file.
        changes: the names that have changed since, each with its new number or None, in order.
    """

    call: str
    names: Names
    contents: Contents
    kept_names: Names
    kept_contents: Contents
    changes: list[tuple[tuple[str, int | None], ...]]


@dataclass
class Recorder:
    """Watches one directory while calls of the ``os`` module that change or sync it go through."""

    directory: Path
    lost: str = ""  # the sync that reports success and does nothing
    moments: list[Moment] = field(default_factory=list)
    syncs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._held: dict[int, BinaryIO] = {}
        self._names, self._contents = self._look()
        self._kept_names, self._kept_contents = dict(self._names), dict(self._contents)
        self._changes: list[tuple[tuple[str, int | None], ...]] = []

    def _look(self) -> tuple[Names, Contents]:
        names, contents = {}, {}
        for path in self.directory.iterdir():
            number = path.stat().st_ino
            if number not in self._held:
                self._held[number] = path.open("rb")
            names[path.name] = number
            contents[number] = path.read_bytes()
        return names, contents

    def close(self) -> None:
        """Let go of the files. Held open, a removed file keeps its number, so that no new file is taken for it."""
        for file in self._held.values():
            file.close()

    def note(self, call: str) -> None:
        """Take down the directory as it is, before a call or at the end."""
        names, contents = self._look()
        changed = [
            (name, names.get(name)) for name in {**self._names, **names} if names.get(name) != self._names.get(name)
        ]
        if changed:
            # A rename changes two names at once; new files come one by one.
            self._changes.append(tuple(sorted(changed, key=lambda change: change[1] is not None)))
        self._names, self._contents = names, contents
        self.moments.append(
            Moment(call, names, contents, dict(self._kept_names), dict(self._kept_contents), list(self._changes))
        )

    def _label(self, path: Path) -> str:
        """Name a sync: what kind of file it is of, and which one of them it is."""
        kinds = {"tombstones": "tombstones", ".table.json": "layout", ".safetensors": "shard"}
        kind = next((kind for part, kind in kinds.items() if part in path.name), "directory")
        return f"{kind} {1 + sum(known.startswith(kind) for known in self.syncs)}"

    def synced(self, path: Path) -> bool:
        """Take down that a file or the directory is synced; return whether the disk is told, too."""
        self.syncs.append(self._label(path))
        if self.syncs[-1] == self.lost:
            return False
        if path == self.directory:
            self._kept_names, self._changes = dict(self._names), []
        else:
            inode = path.stat().st_ino
            self._kept_contents[inode] = self._contents[inode]
        return True


@contextmanager
def recorded(directory: Path, monkeypatch: pytest.MonkeyPatch, *, lost: str = "") -> Iterator[Recorder]:
    """Record the block's calls; ``lost`` names a sync that is left out."""
    recorder = Recorder(directory, lost)

    def before(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            recorder.note(f"{name}{arguments}")
            return call(*arguments, **options)

        return watched

    sync, together = os.fsync, threading.Lock()

    def watched_sync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        with together:  # files are synced by several threads
            recorder.note(f"fsync({path.name})")
            wanted = recorder.synced(path)
        if wanted:
            sync(descriptor)

    with monkeypatch.context() as patched:
        for name in ("replace", "rename", "unlink", "remove", "link"):
            patched.setattr(os, name, before(name, getattr(os, name)))
        patched.setattr(os, "fsync", watched_sync)
        yield recorder
        recorder.note("the end")
    recorder.close()


def remains(moment: Moment) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield what a power cut at a moment may leave: file names and contents, with a word on how it came about.

    Of the changes of names since the last sync of the directory any may have reached the disk, in any order. A file
    that was not synced since it was written may be empty, or end in a block of zeros, or be whole.
    """
    for chosen in _chosen(len(moment.changes)):
        names = dict(moment.kept_names)
        for number in chosen:
            for name, inode in moment.changes[number]:
                if inode is None:
                    names.pop(name, None)
                else:
                    names[name] = inode
        for what in ("dropped", "zeroed", "whole"):
            found = {name: _content(moment, inode, what) for name, inode in names.items()}
            yield f"before {moment.call}: changes {chosen} of {len(moment.changes)}, unsynced data {what}", found


def _chosen(count: int) -> Iterator[tuple[int, ...]]:
    if count <= _SUBSETS:
        for size in range(count + 1):
            yield from itertools.combinations(range(count), size)
        return
    yield from (tuple(range(size)) for size in range(count + 1))
    yield from ((number,) for number in range(count))
    yield from (tuple(n for n in range(count) if n != left_out) for left_out in range(count))


def _content(moment: Moment, inode: int, what: str) -> bytes:
    written, kept = moment.contents.get(inode), moment.kept_contents.get(inode, b"")
    if written is None or written == kept:
        return kept
    if what == "dropped":
        return kept if kept else b""
    if what == "zeroed":
        whole = max(0, (len(written) - 1) // BLOCK * BLOCK)
        return written[:whole] + bytes(len(written) - whole)
    return written
