"""The snippets of docs/guides/native.md, compiled and run as they stand, by CMake and by pkg-config."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Runtime, UserTable
from fllm_export.bundle.bundle import Bundle

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "native.md").read_text("utf-8")
PROGRAMS = ("top_users", "text_to_users")


def snippets(language: str) -> dict[str, str]:
    """The guide's blocks of one language, by the program that they make."""
    blocks = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)
    assert len(blocks) == len(PROGRAMS)
    return dict(zip(PROGRAMS, blocks, strict=True))


def test_the_guide_names_the_programs_in_this_order() -> None:
    assert re.findall(r"`(\w+)\.cpp`", GUIDE) == list(PROGRAMS)


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    settings = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"} | environment
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning:" not in done.stdout + done.stderr
    return done.stdout


def built_by_cmake(program: str, prefix: Path, folder: Path) -> Path:
    (folder / "CMakeLists.txt").write_text(snippets("cmake")[program])
    run(["cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}"], folder)
    run(["cmake", "--build", "build"], folder)
    return folder / "build" / program


def built_by_pkg_config(program: str, prefix: Path, folder: Path) -> Path:
    if shutil.which("pkg-config") is None:
        pytest.skip("no pkg-config")
    run(["sh", "-euc", snippets("sh")[program].replace("PREFIX", str(prefix))], folder)
    return folder / program


Builder = Callable[[str, Path, Path], Path]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("build", [built_by_cmake, built_by_pkg_config])
def test_snippets(
    build: Builder, program: str, native_prefix: Path, tiny_bundle: Bundle, onnxruntime_library: str, tmp_path: Path
) -> None:
    (tmp_path / f"{program}.cpp").write_text(snippets("cpp")[program])
    path = build(program, native_prefix, tmp_path)
    runtime = Runtime.open(tiny_bundle.path, threads=1)
    if program == "text_to_users":
        printed = run([path, tiny_bundle.path, "a paper on graphs"], tmp_path, FLLM_ONNXRUNTIME=onnxruntime_library)
        assert list(map(int, printed.split())) == runtime.topk(["a paper on graphs"], 100).user_ids[0].tolist()
    else:
        printed = run([path, tiny_bundle.path / "users"], tmp_path)
        wanted = runtime.users.topk([[0.5] * 16], 10)
        assert [int(line.split()[0]) for line in printed.splitlines()] == wanted.user_ids[0].tolist()


def documented(heading: str) -> set[str]:
    """What stands in the first column of a table of the server's page."""
    page = (ROOT / "docs" / "reference" / "cpp_server.md").read_text("utf-8")
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.M))


def test_the_servers_page_is_complete() -> None:
    sources = {path.name: path.read_text("utf-8") for path in (ROOT / "examples" / "cpp_server").glob("*.cpp")}
    known = re.findall(r'\{"(--[a-z-]+)", (?:text|count)', sources["options.cpp"])
    assert {option.split()[0] for option in documented("Options")} == set(known)
    routes = re.findall(r'http_\.(Post|Get)\("(/[\w/]+)"', sources["service.cpp"])
    assert documented("Routes") == {f"{method.upper()} {path}" for method, path in routes}
    assert documented("Request") == set(re.findall(r'name == "(\w+)"', sources["request.cpp"]))
    written = re.findall(r'\\"(\w+)\\":|append\(text, "(\w+)", ', sources["answer_text.cpp"])
    answered = {name for pair in written for name in pair if name} - {"user_id", "score", "log_prob"}
    assert {name.removeprefix("items[].") for name in documented("Answer")} == answered


def test_the_snippet_that_changes_users(native_prefix: Path, tmp_path: Path) -> None:
    """In C99, without a warning; of a user that is new, then of one that the table has."""
    (program,) = re.findall(r"```c\n(.*?)```", GUIDE, re.S)
    (tmp_path / "change_users.c").write_text(program)
    library = native_prefix / "lib"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{native_prefix / 'include'}"]
    run(["cc", *flags, "change_users.c", f"-L{library}", f"-Wl,-rpath,{library}", "-lfllm", "-o", "change"], tmp_path)
    UserTable.create(tmp_path / "t", np.random.default_rng(0).standard_normal((40, 16)))
    for generation, user in ((2, 77), (3, 77), (4, 5)):  # of users with equal scores the first one is the best
        printed = run([tmp_path / "change", tmp_path / "t", str(user)], tmp_path)
        assert printed == f"generation {generation}, best user {user}\n"
    assert len(UserTable.open(tmp_path / "t")) == 41
