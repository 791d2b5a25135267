"""A Docker build context: a Dockerfile per server, the bundle, and the source that both are built from."""

from __future__ import annotations

import shutil
from pathlib import Path

import fllm_export
from fllm_export import arguments
from fllm_export.bundle.bundle import Bundle
from fllm_export.errors import UsageError
from fllm_export.packing.context import FILES, copy_bundle, fresh_directory
from fllm_export.progress import Progress, silent

DOCKERFILES = ("python.Dockerfile", "cpp.Dockerfile")
SOURCES = (
    "LICENSE",
    "Makefile",
    "README.md",
    "calibration",
    "cli",
    "constraints",
    "engines",
    "examples/cpp_server",
    "fllm_export",
    "pyproject.toml",
)
"""What the servers are built from, relative to a checkout."""

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.so", "tests", "corpus", "build", ".*")


def pack_docker(bundle: Bundle, out: str | Path, source: str | Path | None = None, progress: Progress = silent) -> Path:
    """Write a build context for images of the Python and the C++ server with this bundle.

    Args:
        bundle: copied into it, every file checked against its hash.
        out: the new directory.
        source: a checkout of this project; the one that is installed as editable when not given.
        progress: told of bytes.

    Returns:
        The directory.

    Raises:
        BundleError: a file of the bundle is missing or damaged; nothing is left at ``out``.
        UsageError: there is something at ``out``, or no checkout was found.
    """
    checkout = _checkout(source)
    with fresh_directory(out, bundle) as fresh:
        for name in DOCKERFILES:
            shutil.copyfile(FILES / name, fresh / name)
        shutil.copyfile(FILES / "dockerignore", fresh / ".dockerignore")
        copy_bundle(bundle, fresh / "bundle", progress)
        for name in SOURCES:
            _copy(checkout / name, fresh / "source" / name)
    return Path(out)


def _checkout(source: str | Path | None) -> Path:
    # An installed package has no source of the C++ server beside it, which is found out below.
    found = Path(fllm_export.__file__).resolve().parents[1] if source is None else arguments.path(source, "source")
    missing = next((name for name in SOURCES if not (found / name).exists()), None)
    if missing is not None:
        raise UsageError(
            f"{found} has no {missing}",
            expected="a checkout of fllm-export, from which the servers are built",
            fix="Specify one with --source",
        )
    return found


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=_LEFT_OUT)
    else:
        shutil.copyfile(source, target)
