"""The documentation is held to the code: every verb and flag is described, and what README shows is run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from fllm_export import Bundle
from fllm_export.cli.main import main
from fllm_export.cli.reference import commands, refreshed
from fllm_export.engines.registry import ENGINES
from fllm_export.environment import VARIABLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text()
COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    assert COMMANDS[name].help
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} has no help"


def test_the_option_tables_are_those_of_the_commands() -> None:
    assert refreshed(PAGE) == PAGE, "run: python -m fllm_export.cli.reference docs/reference/cli.md"


def test_a_changed_option_makes_the_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    option = next(o for o in COMMANDS["query"].params if "--seed" in o.opts)
    monkeypatch.setattr(option, "help", "Something else.")
    assert "| `--seed` | Something else. Default: `0`. |" in refreshed(PAGE)
    with pytest.raises(ValueError, match="no-such-verb"):
        refreshed(PAGE + "## no-such-verb\n")
    with pytest.raises(ValueError, match="0 tables"):
        refreshed(PAGE.replace("| option | use |", "| option |"))


def test_every_flag_named_in_the_text_exists() -> None:
    flags = {flag for command in COMMANDS.values() for p in command.params for flag in [*p.opts, *p.secondary_opts]}
    for flag in re.findall(r"`(--?[a-z][a-z-]*)`", PAGE):
        assert flag in flags, f"docs/reference/cli.md describes {flag}, which does not exist"


def test_engines_and_environment_variables_are_documented_as_they_are() -> None:
    page = (ROOT / "docs" / "guides" / "runtime.md").read_text()
    for name, entry in ENGINES.items():
        assert f"| `{name}` | {entry.runs} | {', '.join(entry.codecs)} | {entry.exactness} |\n" in page
    for name, use in VARIABLES.items():
        assert f"| `{name}` | {use} |\n" in page


def python_blocks(path: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/guides/runtime.md", "docs/guides/planning.md", "docs/reference/format.md"]
)
def test_python_examples_run(page: str, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bundle", "demo/bundle"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tiny_bundle.path)
    blocks = python_blocks(page)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_readme_names_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for verb in re.findall(r"^fllm-export (\w+)", text, re.MULTILINE):
        assert verb in main.commands
    for target in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
        dry = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, f"README names make {target}, which does not exist"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for target in re.findall(r"docs/[\w/-]+\.md", page.read_text()):
            assert (ROOT / target).exists(), f"{page.name} names {target}"
