from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fllm_export import errors
from fllm_export.cli.main import EXIT_CODES, main
from fllm_export.engines.registry import ENGINES

HEAVY = ("torch", "onnx", "transformers", "onnxruntime", "peft", "numpy")


def run(*arguments: object) -> object:
    return CliRunner().invoke(main, list(map(str, arguments)))


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def fastest_s(code: str) -> float:
    """Return the best of five processes' CPU times, which other work on the machine hardly changes."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from fllm_export.cli.main import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; print(*sys.modules)"
    )
    loaded = set(python(code).split())
    assert not loaded & set(HEAVY)


def test_the_package_imports_nothing_heavy() -> None:
    assert not set(python("import sys, fllm_export; print(*sys.modules)").split()) & set(HEAVY)


def test_help_and_import_take_less_than_300_ms() -> None:
    assert fastest_s("from fllm_export.cli.main import main; main(['--help'])") < 0.3
    assert fastest_s("import fllm_export") < 0.3


def test_every_cause_has_an_exit_code() -> None:
    causes = {kind for kind in vars(errors).values() if isinstance(kind, type)} - {errors.FllmError}
    assert set(EXIT_CODES) == causes
    assert sorted(EXIT_CODES.values()) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(("kind", "code"), EXIT_CODES.items())
def test_a_failure_gives_its_exit_code_and_one_line(kind: type[errors.FllmError], code: int) -> None:
    @click.command()
    def fail() -> None:
        raise kind("a thing was found", expected="another", fix="Do this")

    main.add_command(fail, "fail")
    try:
        result = run("fail")
    finally:
        del main.commands["fail"]
    assert result.exit_code == code
    assert result.stderr == "error: a thing was found; expected another. Do this.\n"


def test_a_kind_of_an_error_has_its_name_and_exit_code() -> None:
    class TornError(errors.BundleError):
        """Damage of one sort."""

    @click.command()
    def fail() -> None:
        raise TornError("a page is torn")

    main.add_command(fail, "fail")
    try:
        result = run("fail")
    finally:
        del main.commands["fail"]
    assert result.exit_code == 4
    assert result.stderr == "error: a page is torn.\n"


def test_an_interrupt_is_130_and_a_bug_is_1() -> None:
    @click.command()
    @click.argument("what")
    def fail(what: str) -> None:
        raise KeyboardInterrupt if what == "interrupt" else ZeroDivisionError

    main.add_command(fail, "fail")
    try:
        assert run("fail", "interrupt").exit_code == 130
        bug = run("fail", "bug")
    finally:
        del main.commands["fail"]
    assert bug.exit_code == 1
    assert isinstance(bug.exception, ZeroDivisionError)


def test_json_failures_are_json(tmp_path: Path) -> None:
    result = run("verify", tmp_path, "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert document["schema"] == "fllm-export/error"
    assert document["error"]["kind"] == "BundleError"
    assert "manifest.json" in document["error"]["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "--json"],
        ["query", ".", "text", "--threads", "0", "--json"],
        ["query", "--no-such-option", "--json"],
        ["no-such-verb", "--json"],
        ["--no-such-option", "info", "--json"],
    ],
)
def test_usage_errors_that_click_finds_are_json_too(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert (document["schema"], document["error"]["kind"]) == ("fllm-export/error", "UsageError")
    assert document["error"]["exit_code"] == 2
    assert document["error"]["message"] in result.stderr


def test_json_behind_the_end_of_options_is_a_text() -> None:
    result = run("query", "--", "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


def on_a_terminal(*arguments: object, **environment: str) -> bytes:
    """Return what the command writes where stderr is a terminal."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "fllm_export.cli", *map(str, arguments)],
            env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, **environment},
            stderr=theirs,
        )
        return os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)


def test_no_color_is_honoured(tmp_path: Path) -> None:
    assert b"\x1b[31m" in on_a_terminal("inspect", tmp_path)
    assert b"\x1b[31m" in on_a_terminal("inspect", tmp_path, NO_COLOR="")
    plain = on_a_terminal("inspect", tmp_path, NO_COLOR="1")
    assert plain.startswith(b"error: ")
    assert b"\x1b" not in plain


def test_info_prints_text_and_json() -> None:
    assert "onnxruntime" in run("info").stdout
    document = json.loads(run("info", "--json").stdout)
    assert document["schema"] == "fllm-export/info"
    assert document["cpu_levels"][0] == "scalar"


def test_info_says_which_engines_run_here_and_why_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLLM_CUDA_LIBRARY", "/nowhere/libfllm_cuda.so")
    engines = json.loads(run("info", "--json").stdout)["engines"]
    assert list(engines) == list(ENGINES)
    for name in ("native", "numpy", "onnxruntime"):
        assert engines[name] == {"runs": True, "why_not": None}
    assert not engines["cuda"]["runs"]
    assert "/nowhere/libfllm_cuda.so" in engines["cuda"]["why_not"]
    assert "not available here: the engine 'cuda' cannot run: " in run("info").stdout


def test_a_bad_environment_variable_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fllm_export.cli", "info"],
        env={**os.environ, "FLLM_NUM_THREADS": "many"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "FLLM_NUM_THREADS is 'many'; expected an integer" in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path: Path, encoding: str) -> None:
    named = os.fsencode(tmp_path) + b"/caf\xe9\xe2\x98\x83"
    Path(os.fsdecode(named)).mkdir()
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "fllm_export.cli", "inspect", named]
    plain = subprocess.run(command, capture_output=True, env=environment)
    assert plain.returncode == 2
    assert b"\\udce9" in plain.stderr
    as_json = subprocess.run([*command, "--json"], capture_output=True, env=environment)
    assert as_json.returncode == 2
    message = json.loads(as_json.stdout)["error"]["message"]
    assert message.startswith(os.fsdecode(named))
