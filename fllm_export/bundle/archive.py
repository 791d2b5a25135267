"""A bundle as one tar file, the same bytes from the same bundle."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path
from typing import IO, cast

from fllm_export import arguments
from fllm_export.bundle.bundle import Bundle
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import open_regular, publish
from fllm_export.manifest import FILE_NAME
from fllm_export.progress import Progress, silent
from fllm_export.system_errors import check_place


class _Hashing:
    """A file that is hashed while it is read, so that packing reads every byte once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        self.digest.update(part)
        return part


def pack(bundle: Bundle, archive: str | Path, progress: Progress = silent) -> int:
    """Write the bundle's files and its manifest below the bundle's name; return how many.

    Args:
        bundle: the bundle.
        archive: the tar file; replaced by rename when all is well.
        progress: told of bytes.

    Raises:
        BundleError: a file is missing or not as the build left it; no archive is written.
        UsageError: the archive would lie inside the bundle, or cannot be written there.
    """
    target = arguments.path(archive, "archive")
    check_place(target, "archive")
    if target.is_dir():
        raise UsageError(f"{target} is a directory", expected="the path of a tar file")
    if target.resolve().is_relative_to(bundle.path.resolve()):
        raise UsageError(f"{target} lies inside the bundle", expected="a path outside the bundle")
    files = bundle.files()
    total, done = sum(entry.bytes for entry in files.values()), 0
    with publish(target) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, entry in sorted(files.items()):
            digest = _add(tar, bundle.path, name)
            if digest != entry.sha256:
                raise BundleError(
                    f"{bundle.path / name} has SHA-256 {digest}", expected=entry.sha256, fix="Copy the file again"
                )
            done += entry.bytes
            progress("pack", done, total)
        _add(tar, bundle.path, FILE_NAME)
    return len(files) + 1


def _add(tar: tarfile.TarFile, bundle: Path, name: str) -> str:
    """Add one file without owner and times, and return its SHA-256."""
    path = bundle / name
    try:
        # Below the name that was given, even where that is a link.
        info = tarfile.TarInfo(f"{Path(os.path.abspath(bundle)).name}/{name}")  # noqa: PTH100
        info.size = path.stat().st_size
        with open_regular(path) as file:
            hashing = _Hashing(file)
            tar.addfile(info, cast("IO[bytes]", hashing))
    except OSError as error:
        if path.is_file():
            raise
        raise BundleError(f"{path} is missing ({error})", expected="the file that the manifest lists") from None
    return hashing.digest.hexdigest()
