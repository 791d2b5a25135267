"""What a runtime has open at a time: the encoder and the user table of one bundle, which belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fllm_export.engines.registry import NativeOptions
from fllm_export.errors import BundleError
from fllm_export.files import open_whole
from fllm_export.manifest import FILE_NAME, Manifest
from fllm_export.operating_point import OperatingPoint
from fllm_export.runtime.encoder import Encoder
from fllm_export.runtime.user_table import UserTable


@dataclass(frozen=True)
class OpenedBundle:
    """Encoder and user table of one bundle.

    Attributes:
        root: the bundle's directory, symbolic links resolved.
        manifest: its manifest.
        encoder: turns texts into item vectors.
        users: scans the user rows.
    """

    root: Path
    manifest: Manifest
    encoder: Encoder
    users: UserTable

    def has_model_of(self, manifest: Manifest) -> bool:
        """Whether another manifest describes the same encoder, so that item vectors stay the same."""
        return _model(self.manifest) == _model(manifest)


@dataclass(frozen=True)
class BundleOptions:
    """How a bundle is opened, the first time and again.

    Attributes:
        directory: the bundle, or a symbolic link to it.
        engine: name of the engine that scans.
        encoder: name of what encodes texts.
        threads: threads inside one call.
        native: options that only the engine ``native`` has.
        point: the operating point of searches, or None.
    """

    directory: Path
    engine: str
    encoder: str
    threads: int
    native: NativeOptions
    point: OperatingPoint | None = None

    def open(self, current: OpenedBundle | None = None) -> OpenedBundle:
        """Open what lies at the directory now; what ``current`` has of it is used again.

        Where the directory is replaced meanwhile it is opened once more, so that encoder and table are of one bundle.

        Raises:
            BundleError: the bundle is incomplete, damaged or of a newer format.
            HardwareError: the engine or the encoder cannot run here.
        """
        return open_whole("bundle", self.directory / FILE_NAME, lambda: self._open(current))

    def open_beside(self, current: OpenedBundle) -> OpenedBundle:
        """Open what lies at the directory now without a change to ``current``, whose encoder is used again if it fits.

        Raises:
            BundleError: the bundle is incomplete, damaged or of a newer format.
            HardwareError: the engine or the encoder cannot run here.
        """
        return open_whole("bundle", self.directory / FILE_NAME, lambda: self._open_anew(current))

    def _open(self, current: OpenedBundle | None) -> OpenedBundle:
        root = self.directory.resolve()
        manifest = Manifest.load(root)
        if current is not None and root == current.root and manifest == current.manifest:
            # The same bundle, whose table may have been replaced or may have grown.
            current.users.reopen()
            return current
        return self._open_anew(current)

    def _open_anew(self, current: OpenedBundle | None) -> OpenedBundle:
        root = self.directory.resolve()
        manifest = Manifest.load(root)
        encoder = self._encoder(root, manifest, current)
        users = self.open_users(root)
        _check_dim(users, manifest)
        return OpenedBundle(root, manifest, encoder, users)

    def _encoder(self, root: Path, manifest: Manifest, current: OpenedBundle | None) -> Encoder:
        # Opened before the table, which takes what memory of a GPU it finds.
        if current is not None and current.has_model_of(manifest):
            return current.encoder
        return Encoder(root, manifest.prompt, manifest.dim, self.threads, self.encoder)

    def open_users(self, root: Path) -> UserTable:
        """Open the user table of the bundle at ``root``.

        Raises:
            FllmError: as :meth:`UserTable.open`.
        """
        return UserTable.open(
            root / "users",
            engine=self.engine,
            threads=self.threads,
            head=root / "head",
            operating_point=self.point,
            **self.native,
        )


def _check_dim(users: UserTable, manifest: Manifest) -> None:
    if users.dim != manifest.dim:
        raise BundleError(
            f"{users.directory} holds rows of dimension {users.dim}",
            expected=f"{manifest.dim}, as the manifest says",
        )


def _model(manifest: Manifest) -> tuple[object, ...]:
    files = {
        name: entry for name, entry in manifest.files.items() if name == "tokenizer.json" or name.startswith("encoder/")
    }
    return manifest.prompt, manifest.dim, files
