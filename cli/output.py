"""The one place that writes to the terminal: results to stdout, everything meant for a person to stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import click

_BAR_CELLS = 24
_LINE_EVERY_S = 5.0
_DRAW_EVERY_S = 0.1


class Output:
    """What a command prints, and how.

    Attributes:
        json: print results and errors as one JSON document each.
        quiet: print no remarks and no progress.
        verb: the command's name, part of the JSON schema name.
        findings: by name, what a failure prints beside its message under ``--json``.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.quiet = False
        self.verb = ""
        self.findings: dict[str, Any] = {}
        self._stage = ""
        self._drawn_at = 0.0
        self._bar_open = False

    def say(self, text: str) -> None:
        """Print a remark for a person."""
        if not self.quiet:
            self._close_bar()
            click.echo(_printable(text, sys.stderr), err=True)

    def result(self, data: dict[str, Any], text: str) -> None:
        """Print the command's result: ``data`` under ``--json``, otherwise ``text``."""
        self._close_bar()
        if self.json:
            document = {"schema": f"fllm-export/{self.verb}", "version": 1, **data}
            click.echo(_json(document))
        else:
            click.echo(_printable(text, sys.stdout))

    def failing(self, name: str, data: dict[str, Any], text: str) -> None:
        """Print what was found before a failure that is about to be raised; ``data`` is part of its document."""
        self.findings[name] = data
        self._close_bar()
        click.echo(_printable(text, sys.stderr), err=True)

    def error(self, kind: str, message: str, exit_code: int) -> None:
        """Print a failure; under ``--json`` it goes to stdout too, so that a script can read it."""
        self._close_bar()
        if self.json:
            failure = {"kind": kind, "message": message, "exit_code": exit_code, **self.findings}
            click.echo(_json({"schema": "fllm-export/error", "version": 1, "error": failure}))
        line = f"{click.style('error', fg='red', bold=True)}: {message}"
        click.echo(_printable(line, sys.stderr), err=True, color=_colours())

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is: a bar on a terminal, a line now and then elsewhere."""
        if self.quiet:
            return
        now = time.monotonic()
        started, ended = stage != self._stage, done >= total
        on_terminal = sys.stderr.isatty()
        if not (started or ended) and now - self._drawn_at < (_DRAW_EVERY_S if on_terminal else _LINE_EVERY_S):
            return
        if started:
            self._close_bar()
        self._stage, self._drawn_at = ("" if ended else stage), now
        share = done / total if total else 1.0
        if on_terminal:
            cells = round(share * _BAR_CELLS)
            bar = "#" * cells + "-" * (_BAR_CELLS - cells)
            click.echo(f"\r{stage:<24} [{bar}] {share:4.0%} {done}/{total}\x1b[K", err=True, nl=ended)
            self._bar_open = not ended
        elif not started or ended:
            click.echo(f"{stage}: {done}/{total} ({share:.0%})", err=True)

    def _close_bar(self) -> None:
        if self._bar_open:
            click.echo("", err=True)
            self._bar_open = False
            self._stage = ""


def _printable(text: str, stream: TextIO) -> str:
    """Return a text with escapes for what the stream cannot show, such as bytes of a file's name that are not UTF-8."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _json(document: dict[str, Any]) -> str:
    """Return a document in the characters that stdout can show, with JSON's own escapes for all others."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return text if _printable(text, sys.stdout) == text else json.dumps(document, allow_nan=False)


pass_output = click.make_pass_decorator(Output, ensure=True)


def _colours() -> bool | None:
    """Return False where ``NO_COLOR`` is set and not empty; None leaves it to click, which asks for a terminal."""
    return False if os.environ.get("NO_COLOR") else None


JSON_FLAG = "--json"


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the ``--json`` flag."""

    def switch(context: click.Context, _: click.Parameter, value: bool) -> None:
        output = context.ensure_object(Output)
        output.json = value
        output.verb = "-".join(context.command_path.split()[1:])

    return click.option(
        JSON_FLAG,
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=switch,
        help="Print the result as one JSON document.",
    )(command)


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return a table as text: the first ``left`` columns flush left, the others flush right."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def byte_text(count: float) -> str:
    """Return a number of bytes in the largest binary unit that keeps it at 1 or more."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
