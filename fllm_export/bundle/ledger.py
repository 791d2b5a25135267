"""The ledger of a build: which steps are done, from which inputs, so that an interrupted build goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fllm_export.errors import BundleError, UsageError
from fllm_export.files import locked, publish_json, sha256_file
from fllm_export.strict_json import read_object

FILE_NAME = ".build.json"
LOCK_NAME = ".build.lock"
FILES = (FILE_NAME, LOCK_NAME)
"""What a directory holds only while it is under construction."""


class Ledger:
    """The finished steps in a directory under construction.

    A step is done when its key, a hash of everything that decides its output, is on record and every file that it
    wrote is still there with the same bytes. While the ledger is entered as a context, no other build can enter it.

    Raises:
        BundleError: the record is damaged.
        UsageError: on entering, when another build works in the directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / FILE_NAME
        self._lock = directory / LOCK_NAME
        self._steps = _read(self._path) if self._path.exists() else {}

    def __enter__(self) -> Ledger:
        found = f"another build is running in {self._directory}"
        self._held = locked(self._lock, UsageError(found, fix="Wait until it ends, or choose another output"))
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def is_done(self, step: str, key: str) -> bool:
        """Whether the step's output for this key is in place."""
        record = self._steps.get(step)
        if record is None or record["key"] != key:
            return False
        files = {self._directory / name: digest for name, digest in record["files"].items()}
        return all(path.is_file() and sha256_file(path) == digest for path, digest in files.items())

    def record(self, step: str, key: str, files: list[Path]) -> None:
        """Note that the step has written ``files``."""
        digests = {path.relative_to(self._directory).as_posix(): sha256_file(path) for path in sorted(files)}
        self._steps[step] = {"key": key, "files": digests}
        publish_json(self._path, self._steps)

    def close(self) -> None:
        """Remove the ledger and its lock: the directory is complete."""
        self._path.unlink(missing_ok=True)
        self._lock.unlink()


def _read(path: Path) -> dict[str, Any]:
    again = f"Delete {path.parent} to build from the start"
    steps = read_object(path, fix=again)
    for step in steps.values():
        whole = isinstance(step, dict) and set(step) == {"key", "files"} and isinstance(step["files"], dict)
        if not whole:
            raise BundleError(f"{path} holds the step {step!r:.80}", expected="a key and files", fix=again)
    return steps


def step_key(*inputs: Any) -> str:
    """Return a SHA-256 of JSON-ready inputs."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
