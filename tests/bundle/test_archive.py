"""A bundle goes into one file and back."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from fllm_export import Bundle, BundleError, UsageError
from fllm_export.bundle.archive import pack
from fllm_export.cli.main import main


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


def test_packing_and_unpacking(copy: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    files = pack(Bundle.load(copy), first)
    done = CliRunner().invoke(main, ["pack", str(copy), "-o", str(second), "--json"])
    assert json.loads(done.stdout)["files"] == files
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    Bundle.load(tmp_path / "out" / "bundle").verify()


def test_a_damaged_bundle_is_not_packed(copy: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(copy)
    with pytest.raises(UsageError, match="inside the bundle"):
        pack(bundle, copy / "a.tar")
    card = copy / "README.md"
    text = card.read_text()
    card.write_text(text.replace("e", "a", 1))
    with pytest.raises(BundleError, match="SHA-256"):
        pack(bundle, tmp_path / "a.tar")
    card.unlink()
    with pytest.raises(BundleError, match="is missing"):
        pack(bundle, tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()
