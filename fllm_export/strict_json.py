"""JSON that nobody vouches for: one bounded reader for files, headers and lines."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Set
from pathlib import Path
from typing import Any

from fllm_export.errors import BundleError
from fllm_export.system_errors import limit_error

MAX_DEPTH = 64
"""Brackets that may be open at once; documents of this project need fewer than ten."""

MAX_FILE_BYTES = 64 << 20

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
# A string is skipped whole; one without an end reaches to the end of the text, so that the search stays linear.
_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse(text: bytes | str) -> Any:
    """Parse a document in which every name occurs once in its object.

    A name that occurs twice is how a file shows one thing to one reader and another to the next.

    Args:
        text: the document; bytes are UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is not JSON, is nested deeper than :data:`MAX_DEPTH`, holds a name twice in an object, or a
            string that is not Unicode (a lone surrogate).
    """
    decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
    _check_depth(decoded)
    value = _DECODER.decode(decoded)
    if ("\\u" in decoded or not decoded.isascii()) and _SURROGATE.search(decoded):
        _check_unicode(value)
    return value


def read_object(path: Path, *, fix: str | None = None) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: the file.
        fix: what the reader of an error can do about it.

    Raises:
        BudgetError: a limit of the system is reached.
        BundleError: the file cannot be read, has more than :data:`MAX_FILE_BYTES`, is not JSON by the rules of
            :func:`parse`, or holds something other than an object.
    """
    value = _read(path, "a JSON object", fix)
    if not isinstance(value, dict):
        raise BundleError(f"{path} holds a JSON {type(value).__name__}", expected="a JSON object", fix=fix)
    return value


def read_list(path: Path) -> list[Any]:
    """Return the JSON list in a file.

    Raises:
        BudgetError: a limit of the system is reached.
        BundleError: as :func:`read_object`, or it holds something other than a list.
    """
    value = _read(path, "a JSON list", None)
    if not isinstance(value, list):
        raise BundleError(f"{path} holds a JSON {type(value).__name__}", expected="a JSON list")
    return value


def read_versioned(
    path: Path, supported: int, features: Set[str] = frozenset(), *, fix: str = "Build it again"
) -> dict[str, Any]:
    """Return the JSON object in a file whose ``format_version`` is at most ``supported``.

    Args:
        path: the file.
        supported: the newest version that is read here.
        features: the ``reader_features`` that are known here. A file without that list needs none.
        fix: what to do where it cannot be read.

    Raises:
        BundleError: as :func:`read_object`; or its version is missing or newer (with both numbers); or it needs a
            feature that is not known here, which is named.
    """
    document = read_object(path, fix=fix)
    version = document.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(f"{path}: format_version is {version!r}", expected=f"an integer from 1 to {supported}")
    if version > supported:
        raise BundleError(
            f"{path} has format version {version}",
            expected=f"at most {supported}, the newest that this fllm-export reads",
            fix="Upgrade fllm-export, or build again with this one",
        )
    _check_features(path, document.get("reader_features", []), features)
    return document


def _read(path: Path, expected: str, fix: str | None) -> Any:
    try:
        with path.open("rb") as file:
            content, size = file.read(MAX_FILE_BYTES + 1), os.fstat(file.fileno()).st_size
    except OSError as error:
        damaged = BundleError(f"{path} cannot be read ({error.strerror})", expected="a JSON file", fix=fix)
        raise limit_error(error, path) or damaged from error
    if len(content) > MAX_FILE_BYTES:
        raise BundleError(f"{path} has {size} bytes", expected=f"at most {MAX_FILE_BYTES}", fix=fix)
    try:
        return parse(content)
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error})", expected=f"{expected} in UTF-8", fix=fix) from error


def _check_features(path: Path, needed: Any, known: Set[str]) -> None:
    if not isinstance(needed, list) or not all(isinstance(name, str) for name in needed):
        raise BundleError(f"{path}: reader_features is {needed!r}", expected="a list of names")
    unknown = sorted(set(needed) - known)
    if unknown:
        raise BundleError(
            f"{path} needs the reader features {', '.join(unknown)}",
            expected="only features that this fllm-export knows",
            fix="Upgrade fllm-export",
        )


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKET.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels, at character {match.start()}")
        elif first in "]}":
            depth -= 1


def _check_unicode(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("a string holds half of a surrogate pair, which is not Unicode") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
