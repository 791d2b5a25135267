"""``_core.pyi`` says what the compiled module offers: the same names, parameters and defaults."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import fllm_export
from fllm_export import _core

STUB = ast.parse((Path(fllm_export.__file__).parent / "_core.pyi").read_text())
SCALARS = ("int", "float", "bool", "str", "None")


def parameters(function: ast.FunctionDef) -> list[tuple[str, str, str, str]]:
    """Return (kind, name, type, default) of each parameter, then those of the result; only scalar types are told."""

    def described(kind: str, argument: ast.arg, default: ast.expr | None) -> tuple[str, str, str, str]:
        return kind, argument.arg, scalar(argument.annotation), "" if default is None else ast.unparse(default)

    given = function.args
    first = [None] * (len(given.args) - len(given.defaults)) + given.defaults
    found = [described("positional", *pair) for pair in zip(given.args, first, strict=True)]
    found += [described("keyword", *pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*found, ("returns", "", scalar(function.returns), "")]


def scalar(annotation: ast.expr | None) -> str:
    text = "" if annotation is None else ast.unparse(annotation)
    return text if text in SCALARS else ""


def compiled(function: Any) -> list[tuple[str, str, str, str]]:
    """Return the parameters of a compiled function, by the signature that nanobind keeps."""
    ((signature, _, defaults),) = function.__nb_signature__
    text = re.sub(r"ndarray\[[^]]*\]", "ndarray", signature)
    text = re.sub(r"\\(\d+)", lambda number: repr(defaults[int(number[1])]), text)
    (parsed,) = ast.parse(text + ": ...").body
    assert isinstance(parsed, ast.FunctionDef)
    return parameters(parsed)


def members(body: list[ast.stmt]) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def compare(stub: list[ast.stmt], module: Any, where: str) -> None:
    described = members(stub)
    offered = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    values = [node.target.id for node in stub if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    assert sorted([*described, *values]) == sorted(offered), where
    assert all(isinstance(offered[name], ModuleType if name == "writing" else int) for name in values)
    for name, node in described.items():
        if isinstance(node, ast.ClassDef):
            compare(node.body, offered[name], f"{where}.{name}")
        else:
            assert parameters(node) == compiled(getattr(module, name)), f"{where}.{name}"


def test_the_stub_describes_the_compiled_module() -> None:
    compare(STUB.body, _core, "_core")
