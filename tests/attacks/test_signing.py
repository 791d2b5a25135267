"""The commands of docs/guides/trust.md: what a signature vouches for, and what `verify` cannot know without one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import UserTable
from fllm_export.cli.main import main
from fllm_export.table.layout import TableLayout

pytestmark = pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")
PLAIN = Path(__file__).parents[1] / "format" / "v1" / "int8"
SIGNED = ("manifest.json", "users/table.json")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    public, secret = tmp_path / "key.pub", tmp_path / "key.sec"
    subprocess.run(["minisign", "-G", "-W", "-p", public, "-s", secret], check=True, capture_output=True)
    return public, secret


@pytest.fixture
def bundle(keys: tuple[Path, Path], tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(PLAIN, tmp_path / "bundle"))
    # As builds write bundles now: the table vouches for its own files.
    UserTable.create(tmp_path / "rows", np.random.default_rng(1).standard_normal((50, 12)).astype(np.float32))
    shutil.rmtree(copy / "users")
    (tmp_path / "rows").rename(copy / "users")
    document = json.loads((copy / "manifest.json").read_text())
    document["files"] = {name: entry for name, entry in document["files"].items() if not name.startswith("users/")}
    document["table"] = TableLayout.load(copy / "users").identity
    (copy / "manifest.json").write_text(json.dumps(document))
    for name in SIGNED:
        sign(copy / name, keys)
    return copy


def sign(path: Path, keys: tuple[Path, Path]) -> None:
    subprocess.run(["minisign", "-S", "-s", keys[1], "-m", path], check=True, capture_output=True)


def signed(path: Path, keys: tuple[Path, Path]) -> bool:
    return subprocess.run(["minisign", "-V", "-p", keys[0], "-m", path], capture_output=True).returncode == 0


def intact(path: Path) -> bool:
    return CliRunner().invoke(main, ["verify", str(path)]).exit_code == 0


def test_a_signed_bundle_is_accepted(bundle: Path, keys: tuple[Path, Path]) -> None:
    assert all(signed(bundle / name, keys) for name in SIGNED)
    assert intact(bundle)


def test_what_hashes_alone_cannot_tell(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """An attacker who writes other rows, and hashes that agree with them, is stopped by the signature alone."""
    table = bundle / "users"
    UserTable.create(tmp_path / "false", np.ones((50, 12), np.float32))
    layout = json.loads((table / "table.json").read_text())
    for path in (tmp_path / "false").iterdir():
        shutil.copyfile(path, table / path.name)
    false = TableLayout.load(table)
    (table / "table.json").write_text(
        type(false)(**{**false.__dict__, "identity": layout["identity"]}).text(),
    )
    assert intact(bundle)
    assert signed(bundle / "manifest.json", keys)
    assert not signed(table / "table.json", keys)


def test_a_change_of_the_table_is_signed_again(bundle: Path, keys: tuple[Path, Path]) -> None:
    UserTable.open(bundle / "users", engine="numpy").append(np.ones((1, 12), np.float32), [1000])
    assert signed(bundle / "manifest.json", keys)
    assert not signed(bundle / "users" / "table.json", keys)
    sign(bundle / "users" / "table.json", keys)
    assert signed(bundle / "users" / "table.json", keys)
    assert intact(bundle)


def test_a_signed_archive(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    archive = tmp_path / "bundle.tar"
    assert CliRunner().invoke(main, ["pack", str(bundle), "--out", str(archive)]).exit_code == 0
    sign(archive, keys)
    assert signed(archive, keys)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    assert not signed(archive, keys)
