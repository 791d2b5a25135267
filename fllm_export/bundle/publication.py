"""Putting a new bundle or user table in the place of the one that readers open, in one step."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from fllm_export import arguments
from fllm_export.directory_kinds import BUNDLE, CHECKPOINT, USER_TABLE, kind_of
from fllm_export.errors import UsageError
from fllm_export.files import exchange, publish_link
from fllm_export.manifest import TABLE_FOLDER, Manifest
from fllm_export.runtime.places import table_folder
from fllm_export.table.layout import TableLayout
from fllm_export.table.table import Table


@dataclass(frozen=True)
class Published:
    """What :func:`publish` did.

    Attributes:
        place: the path that readers open.
        generation: that of the table they find there now.
        link: whether ``place`` is a symbolic link to the new directory.
        previous: the directory that stood there before, or None when there was none or it has been removed.
    """

    place: Path
    generation: int
    link: bool
    previous: Path | None


def publish(new: str | Path, place: str | Path, *, keep: bool = False) -> Published:
    """Put a finished bundle or user table where readers open it; at every moment they find the old one or the new.

    Where ``place`` is a symbolic link, or nothing is there, it becomes a link to ``new``, and the directory that it led
    to before stays. Where it is a directory, the two directories change names, and the old one is removed. Searches
    under way, and tables that are open, go on with the old files until they reopen. Publish from one process at a time.

    The new table's generation becomes one more than that of the table that it replaces, unless it is higher already.

    Args:
        new: the directory of the new bundle or table, complete; on the file system of ``place``.
        place: what readers open.
        keep: leave the old directory of an exchange where the new one was.

    Before anything changes, ``new`` is checked as opening it would: its layout, its shards' headers, and all other
    files of a bundle by hash. ``fllm-export verify`` checks every byte of the shards too.

    Raises:
        BundleError: one of the two is damaged.
        UsageError: ``new`` is neither a bundle nor a table, or is published already, or ``place`` holds something
            else or a table of another dimension, or is a directory on a file system that cannot exchange two.
    """
    source, target = arguments.path(new, "new"), arguments.path(place, "place")
    keep = arguments.flag(keep, "keep")
    kind = kind_of(source)
    if kind is None or kind is CHECKPOINT:
        raise UsageError(f"{source} is not a bundle or a user table", expected="the directory to publish")
    occupied = target.exists()
    if occupied and target.samefile(source):
        raise UsageError(f"{target} is {source} already", expected="two directories")
    if occupied and kind_of(target) is not kind:
        raise UsageError(f"{target} exists and is not {kind.name}", expected=f"{kind.name} to replace, or nothing")
    layout = _checked(source)
    generation = layout.generation
    if occupied:
        replaced = TableLayout.load(table_folder(target))
        if kind is USER_TABLE and replaced.item_dim != layout.item_dim:
            raise UsageError(
                f"{source} holds rows of dimension {layout.item_dim}",
                expected=f"{replaced.item_dim}, as the table at {target}, whose readers could not open it again",
                fix="Publish it at another path",
            )
        generation = max(generation, replaced.generation + 1)
        set_generation(source, generation)
    if target.is_symlink() or not occupied:
        previous = target.resolve() if occupied else None
        target.parent.mkdir(parents=True, exist_ok=True)
        publish_link(target, Path(os.path.relpath(source.resolve(), target.parent.resolve())))
        return Published(target, generation, True, previous)
    if source.is_symlink() or not exchange(source, target):
        raise UsageError(
            f"{source} and {target} cannot be exchanged in one step",
            expected="two directories on one file system that can exchange them",
            fix=f"Make {target} a symbolic link to a directory once; a link is replaced in one step everywhere",
        )
    if not keep:
        shutil.rmtree(source)
    return Published(target, generation, False, source if keep else None)


def _checked(directory: Path) -> TableLayout:
    """Return the layout of a table, or of the table in a bundle, all of which can be opened."""
    if BUNDLE.found_at(directory):
        manifest = Manifest.load(directory)
        manifest.verify(directory, [name for name in manifest.files if not name.startswith(TABLE_FOLDER + "/")])
    return Table(table_folder(directory)).layout


def set_generation(directory: Path, generation: int) -> None:
    """Change the generation of a table, or of the table in a bundle (staged, too), that nobody serves yet."""
    layout = TableLayout.load(table_folder(directory))
    if layout.generation == generation:
        return
    if not layout.identity:  # written before there were identities
        layout = layout.born()
    replace(layout, generation=generation).save(table_folder(directory))
    if BUNDLE.found_at(directory):
        manifest = Manifest.load(directory)
        files = {name: entry for name, entry in manifest.files.items() if not name.startswith(TABLE_FOLDER + "/")}
        replace(manifest, files=files, table=layout.identity).save(directory)
