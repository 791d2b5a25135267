"""A compiled module of another version than the Python sources is one clear error, wherever it is met first."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fllm_export
from fllm_export import HardwareError, UserTable, _core
from fllm_export.compiled import INTERFACE, check_interface

PATH = f"import sys; sys.path += {[each for each in sys.path if each.endswith('site-packages')]!r}; "
"""With ``-S`` no ``.pth`` file of an editable installation is read, which would find the compiled module."""

KNOWN = {
    1: "b14bdea1e50185f192c1be290206f9e126e54f8b07fba7245dfd42eec5b5196e",
    2: "59a897ec19761d68d664953899ba5b0d34754362677386ff21246952cc78c3b8",
}
"""By the number of an interface the SHA-256 of what it was when it got that number."""


def test_the_module_of_this_installation_is_accepted() -> None:
    assert _core.interface == INTERFACE
    check_interface(_core.interface)


@pytest.mark.parametrize(
    ("found", "words"), [(None, "its interface has no number"), (INTERFACE + 1, f"has the number {INTERFACE + 1}")]
)
def test_a_module_of_another_version_is_refused(found: int | None, words: str) -> None:
    with pytest.raises(HardwareError, match=f"{words}; expected {INTERFACE}. Install fllm-export again"):
        check_interface(found)


def test_a_checkout_that_is_not_compiled_says_so(tmp_path: Path) -> None:
    shutil.copytree(
        Path(fllm_export.__file__).parent,
        tmp_path / "fllm_export",
        ignore=shutil.ignore_patterns("_core*", "__pycache__"),
    )
    code = "import sys; sys.path.insert(0, '.'); from fllm_export import UserTable; UserTable.open('users')"
    done = subprocess.run([sys.executable, "-S", "-c", PATH + code], capture_output=True, text=True, cwd=tmp_path)
    assert "holds Python sources without the compiled module: it is a checkout" in done.stderr, done.stderr
    assert "Start Python in another directory, or install the checkout in place" in done.stderr


@pytest.mark.parametrize("command", ["info", "users create TABLE ROWS", "query TABLE --file ROWS"])
def test_commands_end_with_that_error(command: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((3, 4), np.float32))
    table = tmp_path / "users"
    if command.startswith("query"):
        UserTable.create(table, np.ones((3, 4), np.float32))
    places = {"TABLE": str(table), "ROWS": str(tmp_path / "rows.npy")}
    arguments = [places.get(word, word) for word in command.split()]
    old = "import sys, types; m = types.ModuleType('fllm_export._core'); m.__file__ = 'old.so'"
    run = "sys.modules[m.__name__] = m; from fllm_export.cli.main import main; main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", f"{old}; {run}", *arguments], capture_output=True, text=True)
    assert done.returncode == 6, done.stderr
    assert "error: the compiled module old.so is of another version than" in done.stderr
    assert "KeyError" not in done.stderr


def test_a_changed_interface_has_another_number(tmp_path: Path) -> None:
    """Where this fails, raise the number in fllm_export/compiled.py and bindings/module.cpp, and add it to KNOWN."""
    UserTable.create(tmp_path / "users", np.ones((3, 4), np.float32))
    stub = (Path(fllm_export.__file__).parent / "_core.pyi").read_text()
    writing = {name: value for name, value in vars(_core.writing).items() if not name.startswith("__")}
    parts = [
        stub,
        *sorted(_core.Table.open(str(tmp_path / "users"), threads=1).describe()),
        *(f"{name} {re.findall(r'([a-z_0-9]+): ', writing[name].__nb_signature__[0][0])}" for name in sorted(writing)),
    ]
    assert hashlib.sha256("\n".join(parts).encode()).hexdigest() == KNOWN[INTERFACE]
