"""Publishing files so that a reader sees the old content or the new, never a part of either; and locking them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from fllm_export.errors import BundleError, UsageError

_CHUNK_BYTES = 1 << 20
_ATTEMPTS = 100
_TOGETHER = 8
# Of renameat2(2): paths are relative to the working directory; exchange two paths.
_HERE, _EXCHANGE = -100, 2
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

Opened = TypeVar("Opened")


class Later:
    """Files that are published together: all of them are synced at once, and the last one takes its name after that.

    A disk commits syncs that come at the same time in one go, which takes half as long as one after the other.
    """

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self._directories: set[Path] = set()
        self._last: tuple[Path, Path] | None = None

    def add(self, file: BinaryIO, directory: Path) -> None:
        """Take down that an open file, whose name is in a directory, is to be synced."""
        if len(self._descriptors) == _TOGETHER:
            self.sync_files()
        self._descriptors.append(os.dup(file.fileno()))
        self._directories.add(directory)

    def stage(self, path: Path, text: str) -> None:
        """Write the file that speaks of the others, UTF-8, beside ``path``, which it replaces in :meth:`publish`."""
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        self._last = Path(name), path
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            self.add(file, path.parent)
        self._last[0].chmod(0o644)

    def sync(self) -> None:
        """Sync all files, then their directories.

        Raises:
            OSError: the system refuses; some files may be synced.
        """
        self.sync_files()
        directories, self._directories = self._directories, set()
        for directory in directories:
            sync_directory(directory)

    def sync_files(self) -> None:
        """Sync all files, and not their names.

        Raises:
            OSError: the system refuses; some files may be synced.
        """
        from concurrent.futures import ThreadPoolExecutor

        descriptors, self._descriptors = self._descriptors, []
        try:
            with ThreadPoolExecutor(max(1, len(descriptors))) as threads:
                list(threads.map(os.fsync, descriptors))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def publish(self) -> None:
        """Give the staged file its name; everything must be synced before.

        Raises:
            OSError: the system refuses; the file may have its name or not, and may keep it or not.
        """
        if self._last is None:
            raise AssertionError("no file is staged")
        temporary, path = self._last
        temporary.replace(path)
        self._last = None
        sync_directory(path.parent)

    def forget(self) -> None:
        """Leave out what has not been done: the files are not wanted any more."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors, self._directories = [], set()
        if self._last is not None:
            self._last[0].unlink(missing_ok=True)


@contextmanager
def publish(path: Path, later: Later | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that replaces it, synced to disk, when the block ends well.

    A reader that has the old file mapped keeps it whole: the name moves to a new inode. When the block
    raises, the temporary file is removed and ``path`` is untouched.

    Args:
        path: the file.
        later: where the sync is put off to; only for names that no reader opens before it was made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if later is None:
                os.fsync(file.fileno())
            else:
                later.add(file, path.parent)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if later is None:
        sync_directory(path.parent)


def publish_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, all or nothing."""
    with publish(path) as file:
        file.write(text.encode("utf-8"))


def publish_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, all or nothing."""
    publish_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return ``value`` as indented JSON with sorted keys and a newline at the end."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def publish_copy(source: Path, target: Path) -> None:
    """Copy a file, all or nothing."""
    with source.open("rb") as old, publish(target) as new:
        shutil.copyfileobj(old, new, _CHUNK_BYTES)


def publish_name(path: Path, second: Path) -> None:
    """Give a file a second name, in one step; the file keeps it when the first name moves to another file.

    Where the file system has no hard links, the file is copied. The new name is durable once the directory is synced.
    """
    aside = second.with_name(f".{second.name}.{secrets.token_hex(4)}")
    try:
        os.link(path, aside)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return publish_copy(path, second)
    try:
        aside.replace(second)
    finally:
        # A rename of one name of a file to another of its names does nothing, and leaves both.
        aside.unlink(missing_ok=True)


@contextmanager
def publish_directory(target: Path) -> Iterator[Path]:
    """Make a temporary directory beside ``target`` that takes its name, synced to disk, when the block ends well.

    When the block raises, the temporary directory is removed and there is no ``target``.

    Raises:
        OSError: ``target`` is a directory with something in it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        temporary.chmod(0o755)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    sync_directory(target.parent)


def publish_link(link: Path, target: Path) -> None:
    """Make ``link`` a symbolic link to ``target``, in one step where it is a link already."""
    with tempfile.TemporaryDirectory(dir=link.parent, prefix=f".{link.name}.") as aside:
        fresh = Path(aside) / "link"
        fresh.symlink_to(target)
        fresh.replace(link)
    sync_directory(link.parent)


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change their contents in one step; no moment is without either.

    Returns:
        False where the system or the file system cannot do it, and nothing was changed.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) != 0:
        return False
    for parent in {one.absolute().parent, other.absolute().parent}:
        sync_directory(parent)
    return True


def check_name(document: Path, name: str) -> None:
    """Check the name of a file that a document lists, relative to the document's directory.

    The one rule about names and links: a name must lead inside by its text alone, and symbolic links are followed
    wherever they lead. Whole bundles are made of links by the Hugging Face cache, by Nix and by Kubernetes.

    Raises:
        BundleError: the name is empty or absolute, or has a part ``.`` or ``..``.
    """
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise BundleError(f"{document} names {name!r}", expected="names of files inside its directory")


def open_whole(kind: str, file: Path, opens: Callable[[], Opened]) -> Opened:
    """Open something of several files, all of them of one publication.

    Another publication may take its place meanwhile; then what was opened, or what failed, may be of both, and it is
    opened again.

    Args:
        kind: what is opened, for the message.
        file: that every publication makes again, in the directory of what is opened.
        opens: opens it as it is now.

    Raises:
        BundleError: as ``opens``, or it was replaced again and again.
    """
    for _ in range(_ATTEMPTS):
        before = _identity(file)
        try:
            opened = opens()
        except BundleError:
            if _identity(file) == before:
                raise
        else:
            if _identity(file) == before:
                return opened
    raise BundleError(
        f"{file.parent} was replaced {_ATTEMPTS} times while it was being opened",
        expected=f"a {kind} that is not replaced while it is opened",
    )


def _identity(file: Path) -> tuple[int, ...] | None:
    """Return what tells a file from one that takes its place."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; opening a pipe, which could wait for its other end for ever, is refused.

    Raises:
        OSError: the path is no regular file, or the system refuses.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if stat.S_ISDIR(mode) else "Not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def sync_directory(path: Path) -> None:
    """Make renames inside ``path`` durable."""
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def locked(path: Path, busy: UsageError, *, wait: bool = False) -> BinaryIO:
    """Open a file, made when it is missing, that no other process can lock until the caller closes it.

    Args:
        path: the file.
        busy: what is raised where another process holds the lock.
        wait: whether to wait for that process instead.

    Raises:
        UsageError: ``busy``, because another process holds the lock.
    """
    held = path.open("wb")
    try:
        fcntl.flock(held, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held.close()
        raise busy from error
    return held
