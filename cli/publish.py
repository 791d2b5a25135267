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
@click.option("--keep", is_flag=True, help="Leave the old directory where NEW was, instead of removing it.")
@json_option
@pass_output
def publish(output: Output, new: Path, place: Path, keep: bool) -> None:
    """Put NEW, a bundle or a user table, at PLACE, which readers open, in one step.

    A symbolic link at PLACE is made to lead to NEW, and so is a new path; the directory that it led to stays. A
    directory at PLACE changes names with NEW and is then removed. Readers find the old one or the new at every moment,
    and see the change when they reopen. The generation counts up.
    """
    from fllm_export.bundle.publication import publish as publish_directory

    done = publish_directory(new, place, keep=keep)
    previous = None if done.previous is None else str(done.previous)
    text = f"{place}: generation {done.generation}" + (f", a link to {new}" if done.link else "")
    if previous is not None:
        text += f"; the one before is {previous}"
    output.result({**asdict(done), "place": str(place), "previous": previous}, text)
