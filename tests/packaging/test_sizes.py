"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES = 400
PRODUCT = ("fllm_export", "cli", "engines", "calibration", "examples")
BESIDE_IT = ("benchmarks", "tests")
GENERATED = ("unicode_tables.cpp",)


def sources(folders: tuple[str, ...], *suffixes: str) -> list[Path]:
    """Return source files below some folders; the links inside fllm_export/ are not followed."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    return [path for path in found if path.name not in GENERATED and "build" not in path.relative_to(ROOT).parts]


@pytest.mark.parametrize("language", [(".py",), (".cpp", ".hpp", ".h", ".cu", ".cuh", ".c")], ids=["python", "c++"])
def test_files_keep_their_size(language: tuple[str, ...]) -> None:
    files = sources((*PRODUCT, *BESIDE_IT), *language)
    assert len(files) > 50
    long = {
        str(path.relative_to(ROOT)): lines for path in files if (lines := path.read_text().count("\n")) > FILE_LINES
    }
    assert not long, f"more than {FILE_LINES} lines: {long}"


Function = ast.FunctionDef | ast.AsyncFunctionDef


def length(function: Function) -> int:
    """Return the lines of a function's body, its docstring aside."""
    body = function.body
    if ast.get_docstring(function) is not None and len(body) > 1:
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize(("folders", "limit"), [(PRODUCT, 40), (BESIDE_IT, 60)], ids=["product", "beside it"])
def test_functions_keep_their_size(folders: tuple[str, ...], limit: int) -> None:
    long = {
        f"{path.relative_to(ROOT)}: {node.name}": length(node)
        for path in sources(folders, ".py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, Function) and length(node) > limit
    }
    assert not long, f"more than {limit} lines: {long}"
