"""``fllm-export verify``: is every byte as the build left it?"""

from __future__ import annotations

from pathlib import Path

import click

from fllm_export.cli.options import DIRECTORY
from fllm_export.cli.output import Output, byte_text, json_option, pass_output
from fllm_export.counted import counted
from fllm_export.directory_kinds import BUNDLE, USER_TABLE, refuse_other_kind


@click.command()
@click.argument("path", type=DIRECTORY)
@json_option
@pass_output
def verify(output: Output, path: Path) -> None:
    """Check the hashes of all files of a bundle, and the consistency of its user table.

    PATH is a bundle or a user table.
    """
    from fllm_export.bundle.bundle import Bundle
    from fllm_export.table.table import Table

    refuse_other_kind(path, BUNDLE, USER_TABLE)
    if USER_TABLE.found_at(path):
        table = Table(path)
        count = table.verify()
        files = len(table.layout.files) + 1
    else:
        bundle = Bundle.load(path)
        files, count = len(bundle.files()), bundle.verify()
    output.result(
        {"path": str(path), "files": files, "bytes": count, "intact": True},
        f"{path}: {counted(files, 'file')}, {byte_text(count)}, all intact",
    )
