"""A finished bundle on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fllm_export import arguments
from fllm_export.bundle.parity import Parity
from fllm_export.errors import BundleError
from fllm_export.manifest import Manifest
from fllm_export.strict_json import read_object
from fllm_export.table.table import Table

PARITY_REPORT = "reports/parity.json"
BUILD_REPORT = "reports/build.json"
ENCODER_REPORT = "reports/encoder.json"


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

        Raises:
            BundleError: naming the first fault.
        """
        count = self.manifest.verify(self.path)
        self.table().verify()
        return count

    def table(self) -> Table:
        """Open the user table read-only.

        Raises:
            BundleError: it is missing or damaged.
        """
        return Table(self.path / "users")

    def parity(self) -> Parity:
        """Return the parity that the build measured.

        Raises:
            BundleError: the report is missing or unreadable.
        """
        try:
            return Parity.from_dict(self.report(PARITY_REPORT)["parity"])
        except (KeyError, TypeError) as error:
            raise BundleError(f"{self.path / PARITY_REPORT} lacks {error}", fix="Build the bundle again") from error

    def report(self, name: str) -> dict[str, Any]:
        """Return a report such as ``reports/parity.json``.

        Raises:
            BundleError: it is missing or is not JSON.
        """
        return read_object(self.path / name, fix="Build the bundle again")
