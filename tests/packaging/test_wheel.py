from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKS = {"cli": "../cli", "engines": "../engines", "calibration": "../calibration"}

# Who may import whom: the one direction in which dependencies point. Modules that are not in a
# package (`manifest`, `prompt`, `item_texts`, `errors`, ...) are below all packages.
ALLOWED = {
    "table": set(),
    "engines": {"table"},
    "calibration": {"table"},
    "checkpoint": set(),
    "graphs": {"checkpoint"},
    "plans": {"calibration", "engines", "graphs", "table"},
    "runtime": {"calibration", "engines", "table"},
    "planning": {"checkpoint", "engines", "runtime", "table"},
    "bundle": {"calibration", "checkpoint", "engines", "graphs", "planning", "plans", "runtime", "table"},
    "packing": {"bundle"},
    "sweep": {"calibration", "checkpoint", "engines", "graphs", "runtime", "table"},
    "evaluation": {"checkpoint", "runtime"},
    "server": {"runtime"},
    "scale": {"checkpoint", "engines", "runtime", "server", "table", "training"},
    "training": {"checkpoint", "evaluation", "runtime", "table"},
    "coldstart": {"checkpoint", "engines", "evaluation", "runtime", "table"},
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout, built without reaching for the network."""
    pytest.importorskip("scikit_build_core")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", out, ROOT]
    command += ["-C", f"build-dir={out / 'build'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_only_top_level_name_is_fllm_export(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fllm_export"}


def test_the_wheel_holds_every_module_as_a_file(wheel: zipfile.ZipFile) -> None:
    expected = {
        f"fllm_export/{path.relative_to(base).as_posix()}"
        for base in (ROOT / "fllm_export",)
        for path in base.rglob("*.py")
    }
    for name in LINKS:
        found = [path.relative_to(ROOT).as_posix() for path in (ROOT / name).rglob("*.py")]
        expected |= {f"fllm_export/{path}" for path in found if not path.startswith("engines/libfllm/")}
    names = set(wheel.namelist())
    assert expected <= names
    assert {"fllm_export/py.typed", "fllm_export/server/page.html"} <= names
    for name in ("python.Dockerfile", "cpp.Dockerfile", "dockerignore", "config.pbtxt"):
        assert f"fllm_export/packing/files/{name}" in names
    assert any(name.startswith("fllm_export/_core.") and name.endswith(".so") for name in names)
    assert not [name for name in names if name.endswith((".cpp", "CMakeLists.txt"))]


def test_the_wheel_carries_the_library_for_c_and_cpp_programs(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for name in (
        "include/fllm/fllm.h",
        "include/fllm/fllm.hpp",
        "lib/libfllm.so",
        "lib/cmake/fllm/fllmConfig.cmake",
        "lib/pkgconfig/fllm.pc",
    ):
        assert f"fllm_export/{name}" in names


@pytest.mark.parametrize(("name", "target"), LINKS.items())
def test_links_are_relative_and_lead_home(name: str, target: str) -> None:
    link = ROOT / "fllm_export" / name
    assert link.is_symlink()
    assert str(link.readlink()) == target
    assert (link / "__init__.py").is_file()


def imports(path: Path) -> set[str]:
    """Return the packages of fllm_export that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fllm_export."):
            found.add(node.module.split(".")[1])
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fllm_export.")}
    return found


def sources(package: str) -> list[Path]:
    """Return the Python files of a package, those of its sub-folders included."""
    base = ROOT / "fllm_export" / package
    return [path for path in base.rglob("*.py") if base / "libfllm" not in path.parents]


def test_every_package_is_on_the_map_and_its_sub_folders_are_looked_into() -> None:
    found = {path.parent.name for path in (ROOT / "fllm_export").glob("*/__init__.py")}
    assert found == {*ALLOWED, "cli"}
    assert ROOT / "fllm_export" / "engines" / "tensorrt" / "plan.py" in sources("engines")


def test_single_modules_are_below_all_packages() -> None:
    for path in (ROOT / "fllm_export").glob("*.py"):
        if path.name != "__init__.py":
            assert not imports(path) & {*ALLOWED, "cli"}, f"{path.name} imports a package"


@pytest.mark.parametrize("package", ALLOWED)
def test_dependencies_point_one_way(package: str) -> None:
    packages = {*ALLOWED, "cli"}
    for path in sources(package):
        foreign = (imports(path) & packages) - {package}
        assert foreign <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {foreign - ALLOWED[package]}"


def test_the_table_needs_numpy_alone() -> None:
    code = "import sys, fllm_export.table.table, fllm_export.table.writer; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "onnx", "onnxruntime", "safetensors", "tokenizers", "click", "transformers"}
