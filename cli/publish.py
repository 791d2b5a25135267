"""``fllm-export publish``: a new bundle or user table in the place of the old."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from fllm_export.cli.options import DIRECTORY
from fllm_export.cli.output import Output, json_option, pass_output


@click.command()
@click.argument("new", type=DIRECTORY)
@click.argument("place", type=click.Path(path_type=Path))
@click.option("--keep", is_flag=True, help="Keep the old directory at the path of NEW, instead of removing it.")
@json_option
@pass_output
def publish(output: Output, new: Path, place: Path, keep: bool) -> None:
    """Publish NEW, a bundle or a user table, at PLACE, the path that readers open, in one step.

    If PLACE is a symbolic link or does not exist, it becomes a link to NEW. The directory that the link pointed to
    stays. If PLACE is a directory, it exchanges names with NEW and is then removed. At every moment readers find
    either the old version or the new one. They see the new one when they reopen PLACE. The generation increases.
    """
    from fllm_export.bundle.publication import publish as publish_directory

    done = publish_directory(new, place, keep=keep)
    previous = None if done.previous is None else str(done.previous)
    text = f"{place}: generation {done.generation}" + (f", a link to {new}" if done.link else "")
    if previous is not None:
        text += f"; the one before is {previous}"
    output.result({**asdict(done), "place": str(place), "previous": previous}, text)
