"""JSON of files that nobody vouches for."""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path
from typing import Any

from fllm_export.errors import BundleError

_FILE_BYTES_MAX = 64 << 20


def parse(text: bytes) -> Any:
    """Parse a document in which every name stands once in its object.

    A name that stands twice is how a file shows one thing to one reader and another to the next.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds a name twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the name {next(name for name in names if names.count(name) > 1)!r} stands twice in one object"
        )
    return members


def read_versioned(path: Path, supported: int, features: Set[str] = frozenset()) -> dict[str, Any]:
    """Read a JSON object whose ``format_version`` is at most ``supported``.

    Args:
        path: the file.
        supported: the newest version that is read here.
        features: the ``reader_features`` that are known here. A file without that list needs none.

    Raises:
        BundleError: it is not a JSON object, its version is missing or newer (with both numbers), or it needs a
            feature that is not known here, which is named.
    """
    size = path.stat().st_size
    if size > _FILE_BYTES_MAX:
        raise BundleError(f"{path} has {size} bytes", expected=f"at most {_FILE_BYTES_MAX}")
    try:
        document = parse(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error})", fix="Build it again") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(f"{path}: format_version is {version!r}", expected=f"an integer from 1 to {supported}")
    if version > supported:
        raise BundleError(
            f"{path} has format version {version}",
            expected=f"at most {supported}, the newest that this fllm-export reads",
            fix="Upgrade fllm-export, or build again with this one",
        )
    found: dict[str, Any] = document
    _check_features(path, found.get("reader_features", []), features)
    return found


def _check_features(path: Path, needed: Any, known: Set[str]) -> None:
    if not isinstance(needed, list) or not all(isinstance(name, str) for name in needed):
        raise BundleError(f"{path}: reader_features is {needed!r}", expected="a list of names")
    unknown = sorted(set(needed) - known)
    if unknown:
        raise BundleError(
            f"{path} needs the reader features {', '.join(unknown)}",
            expected="none that this fllm-export does not know",
            fix="Upgrade fllm-export",
        )
