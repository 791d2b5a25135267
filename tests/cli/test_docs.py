"""The documentation is held to the code: every verb and flag is described, and what README shows is run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from fllm_export import Bundle
from fllm_export.cli.main import main
from fllm_export.environment import VARIABLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text()
VERBS = sorted(main.commands)


def section(verb: str) -> str:
    found = re.search(rf"^## {verb}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference/cli.md has no section {verb}"
    return found[1]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_flag_is_documented(verb: str) -> None:
    command = main.commands[verb]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for flag in parameter.opts:
                assert f"`{flag}`" in section(verb), f"docs/reference/cli.md does not describe {verb} {flag}"
            assert parameter.help, f"{verb} {parameter.opts} has no help"


@pytest.mark.parametrize("verb", VERBS)
def test_every_documented_flag_exists(verb: str) -> None:
    flags = {flag for parameter in main.commands[verb].params for flag in parameter.opts}
    for flag in re.findall(r"`(--?[a-z][a-z-]*)`", section(verb)):
        assert flag in flags, f"docs/reference/cli.md describes {verb} {flag}, which does not exist"


def test_only_verbs_that_exist_are_documented() -> None:
    assert sorted(re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)) == VERBS


def test_every_environment_variable_is_documented() -> None:
    page = (ROOT / "docs" / "guides" / "runtime.md").read_text()
    for name in VARIABLES:
        assert f"`{name}`" in page


def python_blocks(path: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/guides/runtime.md", "docs/reference/format.md"])
def test_python_examples_run(page: str, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(tiny_bundle.path)
    blocks = python_blocks(page)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_readme_names_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for verb in re.findall(r"^fllm-export (\w+)", text, re.MULTILINE):
        assert verb in VERBS
    for target in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
        dry = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, f"README names make {target}, which does not exist"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for target in re.findall(r"docs/[\w/-]+\.md", page.read_text()):
            assert (ROOT / target).exists(), f"{page.name} names {target}"
