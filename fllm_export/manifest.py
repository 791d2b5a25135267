"""``manifest.json``: what a bundle holds, by hash, and how its model is to be asked.

Both the side that builds bundles and the side that serves them read it, so it stands below both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fllm_export import arguments
from fllm_export.directory_kinds import BUNDLE, USER_TABLE, refuse_other_kind
from fllm_export.errors import BundleError, FllmError, UsageError
from fllm_export.files import check_name, publish_json, sha256_file
from fllm_export.prompt import Prompt
from fllm_export.strict_json import read_versioned

FORMAT_VERSION = 1
FILE_NAME = BUNDLE.marker
TABLE_FOLDER = "users"
MOMENTS, TRANSFORM = "calibration/moments.safetensors", "calibration/transform.safetensors"
LEARNER = "learner.safetensors"
CALIBRATION_REPORT = "reports/calibration.json"

READER_FEATURES: frozenset[str] = frozenset()
"""Features that a reader must know to read a bundle right; none exist in format version 1."""


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, bytes: Any, sha256: Any) -> FileEntry:
        """Return the entry that a document holds.

        Raises:
            UsageError: the size is not an integer of 0 or more, or the hash is not a string.
        """
        if not isinstance(sha256, str):
            raise UsageError(f"sha256 is {sha256!r:.60}", expected="a string")
        return cls(arguments.integer(bytes, "bytes", least=0), sha256)


@dataclass(frozen=True)
class Manifest:
    """The bundle's own account of itself, written last.

    Attributes:
        files: every other file of the bundle by its path relative to it, but for those of the user table.
        prompt: template, truncation and padding.
        dim: dimension of an item vector.
        table: the identity of the user table, whose ``table.json`` vouches for its shards, so that the table may grow
            inside the bundle. None in bundles of old, whose ``files`` list the table's files too.
        provenance: what the bundle was made from, and by which versions.
    """

    files: dict[str, FileEntry]
    prompt: Prompt
    dim: int
    table: str | None
    provenance: dict[str, Any]

    def save(self, bundle: Path) -> None:
        """Publish the manifest; until it is there, the directory is not a bundle."""
        document = {
            "format_version": FORMAT_VERSION,
            "reader_features": sorted(READER_FEATURES),
            "writer_features": [],
            **asdict(self),
        }
        publish_json(bundle / FILE_NAME, document)

    @classmethod
    def load(cls, bundle: Path) -> Manifest:
        """Read the manifest.

        Raises:
            BundleError: the directory is a user table or a checkpoint, or the manifest is missing, unreadable, of a
                newer format, or asks for a feature unknown here.
        """
        path = bundle / FILE_NAME
        if not path.is_file() or USER_TABLE.found_at(bundle):
            refuse_other_kind(bundle, BUNDLE)
            raise BundleError(
                f"{bundle} holds no {FILE_NAME}",
                expected="a bundle",
                fix="Specify the directory of a bundle, or let its build run to the end",
            )
        document = read_versioned(path, FORMAT_VERSION, READER_FEATURES)
        try:
            manifest = cls(
                files={str(name): FileEntry.of(**entry) for name, entry in document["files"].items()},
                prompt=Prompt(**document["prompt"]),
                dim=arguments.integer(document["dim"], "dim", least=1),
                table=None if document.get("table") is None else str(document["table"]),
                provenance=dict(document["provenance"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, FllmError) as error:
            raise BundleError(f"{path} is not a manifest ({error!r})", fix="Build the bundle again") from error
        for name in manifest.files:
            check_name(path, name)
        return manifest

    def verify(self, bundle: Path, names: Iterable[str] | None = None) -> int:
        """Check the size and the hash of every file, or of those named, and return the bytes read.

        Raises:
            BundleError: naming the first file that is missing, different or not listed.
        """
        total = 0
        for name in sorted(self.files if names is None else set(names)):
            entry = self.files.get(name)
            if entry is None:
                raise BundleError(f"{bundle / FILE_NAME} does not list {name}", fix="Build the bundle again")
            path = bundle / name
            if not path.is_file():
                raise BundleError(f"{path} is missing", expected="the file that the manifest lists")
            size = path.stat().st_size
            if size != entry.bytes:
                raise BundleError(f"{path} has {size} bytes", expected=f"{entry.bytes}", fix=_mend(name))
            digest = sha256_file(path)
            if digest != entry.sha256:
                raise BundleError(f"{path} has SHA-256 {digest}", expected=entry.sha256, fix=_mend(name))
            total += size
        return total


def _mend(name: str) -> str:
    plan = " or build the plans again (fllm-export plan BUNDLE)" if "/plans/" in name else ""
    return f"Copy the file again{plan}"


def describe_files(bundle: Path, but: Collection[str] = ()) -> dict[str, FileEntry]:
    """Return size and hash of every file below ``bundle`` but the manifest, the user table's and some more."""
    files = {path.relative_to(bundle).as_posix(): path for path in sorted(bundle.rglob("*")) if path.is_file()}
    return {
        name: FileEntry(path.stat().st_size, sha256_file(path))
        for name, path in files.items()
        if name not in (FILE_NAME, *but) and not name.startswith(TABLE_FOLDER + "/")
    }
