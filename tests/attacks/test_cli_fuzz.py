"""Arguments and files drawn at random: whatever a verb is given, it does not end in a traceback (exit code 1)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fllm_export import Bundle
from fllm_export.cli.main import main

# Exit codes that tell a user what happened; 1 is a bug.
TOLD = {0, 2, 3, 4, 5, 6}

# No program can be given an argument that holds a zero byte, so none is drawn.
JUNK = st.sampled_from(["", " ", "-", "--", "0", "-1", "1e9", "nan", "x" * 300, "/dev/null", ".", "caf\udce9", "😀"])
NUMBERS = st.sampled_from(["0", "1", "2", "-1", "1000000", "9" * 30, "1.5", "nan", "inf", "-inf", "", "x"])

# Valid input would build, train or serve for minutes; what these verbs take is drawn from junk alone.
LONG = {"build", "plan", "train", "serve", "sweep", "onboard", "score"}


@dataclass(frozen=True)
class Place:
    """What commands are pointed at.

    Attributes:
        bundle: a copy of a sound bundle.
        texts: a file of item texts.
        junk: a directory whose files are of the right names and of no use.
    """

    bundle: Path
    texts: Path
    junk: Path

    def paths(self) -> list[str]:
        """Return the paths that arguments are drawn from."""
        inside = [self.bundle / "users", self.bundle / "manifest.json", self.junk, self.junk / "none", self.texts]
        return [str(path) for path in (self.bundle, *inside, *sorted(self.junk.iterdir()))]


@pytest.fixture(scope="module")
def place(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(tiny_bundle.path, folder / "bundle")
    (folder / "texts.txt").write_text("a film\na book\n")
    junk = folder / "junk"
    junk.mkdir()
    for name in (
        "filterllm.json",
        "items.csv",
        "interactions.jsonl",
        "a.npy",
        "a.parquet",
        "a.safetensors",
        "a.txt.gz",
    ):
        (junk / name).write_bytes(b'{"users": [1, {"a": null}], "x": 1e999}')
    return Place(folder / "bundle", folder / "texts.txt", junk)


def commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every verb, those of groups included, with the words that name it."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


VERBS = list(commands(main))


def value_of(parameter: click.Parameter, place: Place, long: bool) -> st.SearchStrategy[str]:
    """Return what a parameter's value is drawn from: sound values often enough to get past the first check."""
    if isinstance(parameter.type, click.Choice):
        return st.sampled_from([str(choice) for choice in parameter.type.choices]) | JUNK
    if isinstance(parameter.type, click.Path):
        paths = [path for path in place.paths() if not long or "junk" in path]
        return st.sampled_from(paths) | JUNK
    if parameter.type.name in ("integer", "float", "integer range", "float range"):
        return NUMBERS
    return st.sampled_from(["native", "numpy", "cuda", "cpu", "a film", *place.paths()[:1]]) | JUNK


def invoke(words: list[str], folder: Path) -> None:
    """Run a command in a folder of its own, and fail where it ends in a traceback."""
    runner = CliRunner()
    with runner.isolated_filesystem(temp_dir=folder):
        result = runner.invoke(main, words)
    assert result.exit_code in TOLD, (words, result.exit_code, result.output[-500:], result.exception)


def draw_command(data: st.DataObject, place: Place) -> list[str]:
    names, command = data.draw(st.sampled_from(VERBS))
    words = list(names)
    for parameter in command.params:
        long = names[0] in LONG
        if isinstance(parameter, click.Argument):
            count = data.draw(st.integers(0, 2) if parameter.nargs == -1 else st.sampled_from([1, 1, 1, 0]))
            words += [data.draw(value_of(parameter, place, long)) for _ in range(count)]
        elif data.draw(st.booleans() if parameter.required else st.sampled_from([False, False, True])):
            words.append(parameter.opts[-1])
            if not getattr(parameter, "is_flag", False):
                words.append(data.draw(value_of(parameter, place, long)))
    return words


def fuzz_arguments(place: Place, examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        invoke(draw_command(data, place), place.junk.parent)

    check()


# The graphs of a bundle are left alone: what ONNX Runtime does with a damaged one is tested by cuts, not by chance.
FILES = ["manifest.json", "tokenizer.json", "users/table.json", "users/00000.safetensors", "reports/parity.json"]
ASK: list[list[Any]] = [
    ["inspect"],
    ["verify"],
    ["query", "a film", "-k", "3"],
    ["query", "a film", "--engine", "numpy"],
]


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Return a file's content with some of it changed, cut off, doubled or replaced."""
    at = data.draw(st.integers(0, min(len(content) - 1, 4000)))
    new = data.draw(
        st.binary(max_size=8) | st.sampled_from([b"", b'"', b"[" * 99, b"1e999", b"null", b"-1", b"\xff\xfe"])
    )
    kept = data.draw(st.sampled_from([0, 1, len(new), 100, len(content)]))
    return content[:at] + new + content[at + kept :]


def fuzz_files(place: Place, examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        file = place.bundle / data.draw(st.sampled_from(FILES))
        content = file.read_bytes()
        verb, *rest = data.draw(st.sampled_from(ASK))
        try:
            file.write_bytes(damaged(data, content))
            invoke([verb, str(place.bundle), *rest], place.junk.parent)
        finally:
            file.write_bytes(content)

    check()


ENDINGS = [".txt", ".csv", ".tsv", ".jsonl", ".parquet", ".CSV", ".txt.gz", ".xml", ""]
LINES = st.sampled_from(
    ["text", "id,text", '{"text": "a"}', '{"text": 5}', '"', "a,b,c", "\t", "\0", "caf\u00e9", "\u2028", ""]
)


def fuzz_texts(place: Place, examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(
        ending=st.sampled_from(ENDINGS),
        lines=st.lists(LINES, max_size=5),
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"]),
        end=st.sampled_from(["\n", "\r\n", "\r"]),
    )
    def check(ending: str, lines: list[str], encoding: str, end: str) -> None:
        file = place.junk.parent / f"drawn{ending}"
        file.write_bytes(end.join(lines).encode(encoding, "replace"))
        invoke(["query", str(place.bundle), "--file", str(file), "-k", "2", "--engine", "numpy"], place.junk.parent)

    check()


def test_arguments_drawn_at_random(place: Place) -> None:
    fuzz_arguments(place, 40)


def test_damaged_files_of_a_bundle(place: Place) -> None:
    fuzz_files(place, 25)


def test_files_of_texts_drawn_at_random(place: Place) -> None:
    fuzz_texts(place, 25)


@pytest.mark.slow
def test_a_minute_of_all_three(place: Place) -> None:
    fuzz_arguments(place, 1500)
    fuzz_files(place, 600)
    fuzz_texts(place, 400)
