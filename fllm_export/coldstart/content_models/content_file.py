"""The contents of all items on disk, so that an evaluation encodes each text once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from fllm_export.checkpoint.tensors import open_tensors
from fllm_export.coldstart.content_models.content_model import Rows
from fllm_export.coldstart.mark import Mark
from fllm_export.errors import BundleError
from fllm_export.files import publish

_NAME = "content"


@dataclass(frozen=True)
class ContentFile:
    """A file of vectors, and a mark of what they were made of.

    Attributes:
        folder: where both are.
        key: changes with what the vectors are made of.
    """

    folder: Path
    key: str

    def written(self) -> bool:
        """Return whether the vectors of this key are there."""
        return self._mark.stands()

    def write(self, rows: Rows) -> None:
        """Write the vectors of all items, float32 [I, h], then the mark."""
        with self._mark.renewed(), publish(self._path) as out:
            out.write(save({_NAME: np.ascontiguousarray(rows)}))

    def read(self) -> Rows:
        """Return the vectors of all items, float32 [I, h].

        Raises:
            BundleError: the file is missing or damaged, or its vectors were made of something else.
        """
        if not self.written():
            raise BundleError(
                f"{self._path} is missing, or was made of other texts",
                expected="the file that this evaluation wrote",
                fix="Evaluate again",
            )
        tensors = open_tensors(self._path)
        if _NAME not in tensors:
            raise BundleError(f"{self._path} has no tensor {_NAME!r}", fix="Delete it and evaluate again")
        tensors[_NAME].expect((None, None))
        return tensors[_NAME].read()

    @property
    def _path(self) -> Path:
        return self.folder / "content.safetensors"

    @property
    def _mark(self) -> Mark:
        return Mark(self.folder / "content.key", self.key, (self._path,))
