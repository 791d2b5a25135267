"""A finished bundle on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fllm_export import arguments
from fllm_export.bundle.parity import Parity
from fllm_export.errors import BundleError
from fllm_export.files import sha256_file
from fllm_export.manifest import CALIBRATION_REPORT, FILE_NAME, TABLE_FOLDER, FileEntry, Manifest
from fllm_export.strict_json import read_object
from fllm_export.table.layout import FILE_NAME as TABLE_FILE
from fllm_export.table.layout import TableLayout
from fllm_export.table.table import Table

PARITY_REPORT = "reports/parity.json"
BUILD_REPORT = "reports/build.json"
ENCODER_REPORT = "reports/encoder.json"
CPU_ENCODER_REPORT = "reports/cpu_encoder.json"
SIZE_REPORT = "reports/bytes_per_user.json"


class Bundle:
    """A bundle's directory and its manifest. Nothing is executed; :class:`fllm_export.Runtime` does that."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def load(cls, directory: str | Path) -> Bundle:
        """Read the manifest of a bundle.

        Raises:
            BundleError: there is none, or it is damaged or of a newer format.
        """
        path = arguments.path(directory, "directory")
        return cls(path, Manifest.load(path))

    def verify(self) -> int:
        """Check every file's hash and the user table's own rules, and return the bytes read.

        The manifest vouches for its files and for the user table's identity; ``table.json`` vouches for itself and
        for its shards.

        Raises:
            BundleError: naming the first fault.
        """
        count = self.manifest.verify(self.path)
        self._check_table()
        table_bytes = self.table().verify()
        # The manifests of old list the table's files too.
        return count if self.manifest.table is None else count + table_bytes

    def files(self) -> dict[str, FileEntry]:
        """Return the bundle's files except the manifest: those that it lists, and those of the user table.

        Raises:
            BundleError: ``table.json`` is missing, damaged or another table's.
        """
        if self.manifest.table is None:
            return self.manifest.files
        self._check_table()
        directory = self.path / TABLE_FOLDER
        files = {entry.name: FileEntry(entry.bytes, entry.sha256) for entry in TableLayout.load(directory).files}
        path = directory / TABLE_FILE
        files[TABLE_FILE] = FileEntry(path.stat().st_size, sha256_file(path))
        return {**self.manifest.files, **{f"{TABLE_FOLDER}/{name}": entry for name, entry in files.items()}}

    def _check_table(self) -> None:
        directory, wanted = self.path / TABLE_FOLDER, self.manifest.table
        found = TableLayout.load(directory).identity
        if wanted is not None and found != wanted:
            raise BundleError(
                f"{directory} holds the table {found or 'without an identity'}",
                expected=f"{wanted}, which {self.path / FILE_NAME} vouches for",
                fix="Copy the bundle again, or build it again",
            )
        TableLayout.verify(directory)

    def table(self) -> Table:
        """Open the user table read-only.

        Raises:
            BundleError: it is missing or damaged.
        """
        return Table(self.path / TABLE_FOLDER)

    def parity(self) -> Parity:
        """Return the parity that the build measured.

        Raises:
            BundleError: the report is missing or unreadable.
        """
        try:
            return Parity.from_dict(self.report(PARITY_REPORT)["parity"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"{self.path / PARITY_REPORT} is not a report of parity ({error!r})", fix="Build the bundle again"
            ) from error

    def calibration(self) -> dict[str, Any] | None:
        """Return what calibration measured and chose, or None where the build had no use for it.

        Raises:
            BundleError: the report is not JSON.
        """
        return self.report(CALIBRATION_REPORT) if (self.path / CALIBRATION_REPORT).exists() else None

    def size_search(self) -> dict[str, Any] | None:
        """Return how the form of the rows was searched for a size, or None where it was not.

        Raises:
            BundleError: the report is not JSON.
        """
        return self.report(SIZE_REPORT) if (self.path / SIZE_REPORT).exists() else None

    def report(self, name: str) -> dict[str, Any]:
        """Return a report, for example ``reports/parity.json``.

        Raises:
            BundleError: it is missing or is not JSON.
        """
        return read_object(self.path / name, fix="Build the bundle again")
