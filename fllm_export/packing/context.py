"""Making a directory for a deployment, all or nothing, with the files of a bundle checked while they are copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fllm_export import arguments
from fllm_export.bundle.bundle import Bundle
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish_directory, sha256_file
from fllm_export.manifest import FILE_NAME
from fllm_export.progress import Progress
from fllm_export.system_errors import check_place

FILES = Path(__file__).parent / "files"


@contextmanager
def fresh_directory(out: str | Path, bundle: Bundle) -> Iterator[Path]:
    """Make a directory that takes the name ``out`` when the block ends well.

    Raises:
        UsageError: something is at ``out``, or it lies inside the bundle.
    """
    target = arguments.path(out, "out")
    check_place(target, "out")
    if target.exists() or target.is_symlink():
        raise UsageError(
            f"{target} exists", expected="a path where nothing is", fix="Remove it, or specify another path"
        )
    if target.resolve().is_relative_to(bundle.path.resolve()):
        raise UsageError(f"{target} lies inside the bundle", expected="a path outside the bundle")
    with publish_directory(target) as fresh:
        yield fresh


def copy_bundle(bundle: Bundle, target: Path, progress: Progress) -> None:
    """Copy a bundle's files, its manifest last.

    Raises:
        BundleError: a file is missing or is not as the build left it.
    """
    files = bundle.files()
    total, done = sum(entry.bytes for entry in files.values()), 0
    for name, entry in sorted(files.items()):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not (bundle.path / name).is_file():
            raise BundleError(
                f"{bundle.path / name} is missing",
                expected="the file that the manifest lists",
                fix="Copy the bundle again",
            )
        shutil.copyfile(bundle.path / name, copy)
        digest = sha256_file(copy)
        if digest != entry.sha256:
            raise BundleError(
                f"{bundle.path / name} has SHA-256 {digest}", expected=entry.sha256, fix="Copy the file again"
            )
        done += entry.bytes
        progress("pack", done, total)
    shutil.copyfile(bundle.path / FILE_NAME, target / FILE_NAME)
