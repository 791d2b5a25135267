"""The tables of a sweep: each is written once, and removed when its points are measured."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.calibration.directions import BALANCE, FEEDBACK_BALANCE, ordered, transform_for
from fllm_export.calibration.feedback import Feedback
from fllm_export.calibration.transform import Transform
from fllm_export.extras import require
from fllm_export.files import publish, publish_json
from fllm_export.strict_json import read_object
from fllm_export.sweep.point import TableChoice
from fllm_export.sweep.subject import Subject
from fllm_export.table.options import Choice, TableOptions
from fllm_export.table.rounding import Rounding, nearest
from fllm_export.table.writer import Chunk, TableWriter, write_table

F32 = npt.NDArray[np.float32]

FOLDER = "tables"
_BUILT = "built.json"
_CHUNK_ROWS = 65_536
_LEARNED = 256
"""Items that choose a sketch, at most."""


@dataclass(frozen=True, eq=False)
class BuiltTable:
    """A finished table.

    Attributes:
        users: its directory.
        head: directory of the head graphs, for engines that run them.
        items: the item vectors that are asked, as the table takes them, float32 [B, d].
        build_s: seconds that writing it took.
        bytes_per_user: bytes of its shards per row.
    """

    users: Path
    head: Path
    items: F32
    build_s: float
    bytes_per_user: float


class Tables:
    """Writes tables below the output directory. A table that a killed sweep finished is taken up again.

    Args:
        folder: output directory of the sweep.
        subject: whose rows they hold.
        key: fingerprint of the conditions; tables of others are removed.
    """

    def __init__(self, folder: Path, subject: Subject, key: str) -> None:
        self._all = folder / FOLDER
        self._folder = self._all / key[:16]
        self._subject = subject
        for old in self._all.iterdir() if self._all.exists() else ():
            if old != self._folder:
                shutil.rmtree(old)

    def get(self, choice: TableChoice) -> BuiltTable:
        """Return a table, written now or by the sweep that this one continues."""
        folder = self._folder / choice.name
        record = folder / _BUILT
        if not record.exists():
            if folder.exists():
                shutil.rmtree(folder)
            publish_json(record, self._write(choice, folder))
        built = read_object(record, fix=f"Remove {folder} and sweep again")
        items, transform = self._subject.corpus.items, self._transform(choice)
        if transform is not None:
            items = transform.item_vectors(items)
        return BuiltTable(folder / "users", folder / "head", items, built["build_s"], built["bytes_per_user"])

    def head(self, choice: TableChoice) -> None:
        """Write the head graph that ONNX Runtime runs over a table, where it is not there yet.

        Raises:
            HardwareError: the ``build`` extra is not installed.
        """
        path = self._folder / choice.name / "head" / "tile.onnx"
        if path.exists():
            return
        bias = self._subject.corpus.bias is not None
        model = require("fllm_export.graphs.heads").bundle_heads(choice.quant, choice.dim, bias=bias)["tile"]
        with publish(path) as file:
            file.write(model.SerializeToString())

    def drop(self, choice: TableChoice) -> None:
        """Remove a table whose points are all measured."""
        shutil.rmtree(self._folder / choice.name, ignore_errors=True)

    def close(self) -> None:
        """Remove what is left."""
        shutil.rmtree(self._all, ignore_errors=True)

    def _write(self, choice: TableChoice, folder: Path) -> dict[str, float]:
        began = time.monotonic()
        bias, others = self._subject.corpus.bias, self._subject.others
        transform = self._transform(choice)
        learned = others[:_LEARNED] if others is not None and choice.sketch else None
        if learned is not None and transform is not None:
            learned = transform.item_vectors(learned)
        options = TableOptions(
            choice.quant, sketch=_word(choice.sketch), cluster=_word(choice.cluster), refine=choice.refine
        )
        whole = choice.dim if choice.refine == "no" else self._subject.dim
        writer = TableWriter(
            folder / "users",
            options,
            dim=whole,
            scan_dim=choice.dim,
            bias=bias is not None,
            items=learned,
            rounding=self._rounding(choice, transform),
        )
        layout = write_table(writer, self._chunks(transform))
        size = sum(file.bytes for file in layout.files)
        return {"build_s": time.monotonic() - began, "bytes_per_user": size / layout.rows}

    def _transform(self, choice: TableChoice) -> Transform | None:
        subject = self._subject
        form = subject.form(choice.quant, choice.dim)
        if not (subject.checkpoint or form.by_directions(subject.dim)):
            return None
        directions = subject.directions if form.by_directions(subject.dim) else None
        if choice.refine != "no" and directions is not None and choice.dim < subject.dim:
            return ordered(directions, choice.dim, FEEDBACK_BALANCE if form.rounding == "data" else BALANCE)
        return transform_for(form, subject.dim, directions)

    def _rounding(self, choice: TableChoice, transform: Transform | None) -> Rounding:
        if transform is None or self._subject.form(choice.quant, choice.dim).rounding == "nearest":
            return nearest
        metric = transform.items @ self._subject.moments.metric() @ transform.items.T
        return Feedback(metric[: choice.dim, : choice.dim])

    def _chunks(self, transform: Transform | None) -> Iterator[Chunk]:
        rows, bias, _ = self._subject.corpus
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            chunk = rows[part] if transform is None else transform.rows(rows[part])
            yield chunk, None, None if bias is None else bias[part]


def _word(chosen: bool) -> Choice:
    return "yes" if chosen else "no"
