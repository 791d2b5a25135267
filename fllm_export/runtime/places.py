"""Where the user table of a path lies: the path is a table itself, or a bundle."""

from __future__ import annotations

from pathlib import Path

from fllm_export.directory_kinds import BUNDLE, USER_TABLE, check_kind, refuse_other_kind
from fllm_export.manifest import TABLE_FOLDER


def table_folder(path: Path) -> Path:
    """Return where the table is, or would be if the path held a bundle.

    Raises:
        BundleError: the path is a checkpoint.
    """
    refuse_other_kind(path, BUNDLE, USER_TABLE)
    return path if USER_TABLE.found_at(path) else path / TABLE_FOLDER


def table_of(path: Path) -> Path:
    """Return where the table is.

    Raises:
        BundleError: the path is neither a bundle nor a table.
    """
    table = table_folder(path)
    if table != path:
        check_kind(path, BUNDLE, USER_TABLE)
    return table
