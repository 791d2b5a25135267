"""The option tables of docs/reference/cli.md, from the commands: ``python -m fllm_export.cli.reference PAGE``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from fllm_export.cli.main import main
from fllm_export.files import publish_text

_HEADER = "| option | use |\n| --- | --- |\n"
_TABLE = re.compile(re.escape(_HEADER) + r"(?:\|.*\n)*")


def commands(group: click.Group = main, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, and before it its name as typed, such as ``users create``."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def option_table(command: click.Command) -> str:
    """Return a command's options as a table in Markdown."""
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return _HEADER + "".join(f"| {_names(option)} | {_use(option)} |\n" for option in options)


def refreshed(page: str) -> str:
    """Return the page with the table of each command's section as the command has it.

    A section begins with ``## `` and the command's name, and holds one table of options.

    Raises:
        ValueError: sections and commands differ, or a section has no table.
    """
    head, *sections = re.split(r"(?m)^(?=## )", page)
    known = dict(commands())
    names = [section.partition("\n")[0].removeprefix("## ") for section in sections]
    if sorted(names) != sorted(known):
        raise ValueError(f"the page has the sections {sorted(names)}; expected {sorted(known)}")
    return head + "".join(_with_table(section, known[name]) for name, section in zip(names, sections, strict=True))


def _with_table(section: str, command: click.Command) -> str:
    table = option_table(command)
    changed, count = _TABLE.subn(lambda _: table, section)
    if count != 1:
        raise ValueError(f"the section of {command.name} has {count} tables of options; expected 1")
    return changed


def _names(option: click.Option) -> str:
    return ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])


def _use(option: click.Option) -> str:
    parts = [(option.help or "").rstrip(".") + "."]
    if isinstance(option.type, click.Choice):
        parts.append("One of " + ", ".join(f"`{choice}`" for choice in option.type.choices) + ".")
    if option.required:
        parts.append("Required.")
    if option.multiple:
        parts.append("May be repeated.")
    if option.show_default and option.default is not None:
        values = option.default if isinstance(option.default, tuple) else (option.default,)
        parts.append("Default: " + ", ".join(f"`{value}`" for value in values) + ".")
    if option.envvar:
        parts.append(f"Environment variable: `{option.envvar}`.")
    return " ".join(parts).replace("|", r"\|")


if __name__ == "__main__":

    @click.command()
    @click.argument("page", type=click.Path(exists=True, dir_okay=False, path_type=Path))
    def refresh(page: Path) -> None:
        """Bring the tables of PAGE up to date."""
        publish_text(page, refreshed(page.read_text(encoding="utf-8")))

    refresh()
