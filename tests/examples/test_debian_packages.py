"""examples/debian_packages.py on a small index: what it reads, what it leaves out, and that it names nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from pyarrow import parquet

from fllm_export.evaluation.dataset import Dataset

SCRIPT = Path(__file__).parents[2] / "examples" / "debian_packages.py"
TEAM, PERSON = "Team A <a@example.org>", '"Bee, Example" <B@example.org>, Cee Example <c@example.org>'


def source(package: str, binary: str, maintainer: str = TEAM, uploaders: str = PERSON) -> str:
    return f"Package: {package}\nBinary: {binary}\nMaintainer: {maintainer}\nUploaders: {uploaders}\nSection: misc\n"


def binary(package: str, description: str) -> str:
    return f"Package: {package}\nMaintainer: {TEAM}\nDescription: {description}\n continued\nSection: contrib/text\n"


def write(folder: Path, sources: list[str], binaries: list[str]) -> None:
    folder.mkdir()
    (folder / "mirror_main_Sources").write_text("\n".join(sources))
    (folder / "mirror_main_Packages").write_text("\n".join(binaries))


def run(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(out), "--lists", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    ordinary = [f"made-up{number}" for number in range(30)]
    sources = [source(name, f"{name}-dev,\n {name}") for name in ordinary]
    binaries = [binary(name, f"sorts things, way {name[7:]}.") for name in ordinary]
    binaries += [binary(f"{name}-dev", "headers") for name in ordinary]
    sources += [source("named", "named"), source("addressed", "addressed"), source("rare", "rare", uploaders="")]
    binaries += [binary("named", "by cee example"), binary("addressed", "mail to z@example.org"), binary("rare", "x")]
    sources += [source("orphan", "orphan", "Debian QA Group <q@example.org>", "Dee <d@example.org>")]
    binaries += [binary("orphan", "nobody's")]
    sources += [source("extra", "made-up1") + "Extra-Source-Only: yes\n", source("unseen", "unseen")]
    write(tmp_path / "lists", sources, binaries)
    done = run(tmp_path / "lists", tmp_path / "set")
    assert done.returncode == 0, done.stderr
    return tmp_path / "set"


def test_a_package_is_its_name_its_descriptions_and_its_section(made: Path) -> None:
    rows = parquet.read_table(made / "items.parquet").to_pylist()
    assert sorted(row["title"] for row in rows) == sorted(f"made-up{number}" for number in range(30))
    texts = {row["title"]: row["text"] for row in rows}
    assert texts["made-up7"] == "made up7: sorts things, way 7; headers. Section: text"


def test_it_is_a_data_set_of_three_users_with_all_splits(made: Path) -> None:
    data = Dataset.load(made)
    assert data.user_ids.tolist() == [0, 1, 2]
    sizes = {name: len(pairs) for name, pairs in data.splits.items()}
    assert sum(sizes.values()) == 30 * 3
    assert (sizes["cold_val"], sizes["cold_test"]) == (9, 9)


def test_nobody_is_named(made: Path) -> None:
    for file in made.iterdir():
        content = str(parquet.read_table(file).to_pylist()).lower()
        assert not [word for word in ("@", "example", "team", "bee", "cee") if word in content]


def test_indexes_that_are_missing_or_too_small_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "needs files *Sources and *Packages" in run(tmp_path / "empty", tmp_path / "set").stderr
    write(tmp_path / "small", [source("one", "one")], [binary("one", "alone")])
    done = run(tmp_path / "small", tmp_path / "set")
    assert (done.returncode, "too few maintainers" in done.stderr) == (1, True)
    assert not (tmp_path / "set").exists()
