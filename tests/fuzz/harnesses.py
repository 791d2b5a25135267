"""What the fuzzers do with any bytes: the readers in Python give an error of their own, or a value that keeps promises.

The kinds `layout`, `shard` and `request` share their corpus with the libFuzzer targets of the same names. Everything
but the expected error is a finding.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from fllm_export.errors import BudgetError, BundleError, UsageError
from fllm_export.manifest import FILE_NAME as MANIFEST
from fllm_export.manifest import Manifest
from fllm_export.server.options import ServerOptions
from fllm_export.server.request import Question
from fllm_export.table.codecs import CODECS
from fllm_export.table.layout import FILE_NAME as LAYOUT
from fllm_export.table.layout import TableLayout, TombstonesEntry
from fllm_export.table.shard import Shard, ShardShape, map_tensors, read_tensors
from fllm_export.table.tombstones import TENSOR, Tombstones

CORPUS = Path(__file__).parents[2] / "engines" / "libfllm" / "fuzz" / "corpus"

_PLACE = Path(tempfile.mkdtemp(prefix="fllm-fuzz-"))
_LIMITS = ServerOptions(max_items=8, max_answer_users=1000)


def _written(name: str, data: bytes) -> Path:
    """Return a folder that holds the bytes under a name, and nothing else."""
    folder = _PLACE / name.partition(".")[0]
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder


def layout(data: bytes) -> None:
    """A ``table.json``: a layout whose numbers agree, and that is the same one when it is written and read again."""
    folder = _written(LAYOUT, data)
    try:
        found = TableLayout.load(folder)
    except BundleError:
        return
    assert min(found.dim, found.rows, found.tile_rows, found.generation) >= 1
    deleted = 0 if found.tombstones is None else found.tombstones.deleted
    assert found.stored_rows == found.rows + deleted
    assert all(entry.rows >= 1 and "/" not in entry.name and entry.name for entry in found.files)
    assert found.item_dim >= found.dim
    (folder / LAYOUT).write_text(found.text(), "utf-8")
    assert TableLayout.load(folder) == found


def shard(data: bytes) -> None:
    """A shard: tensors within the file, and of the shape that a table wants, for each codec."""
    path = _written("00000.safetensors", data) / "00000.safetensors"
    try:
        tensors = read_tensors(path)
    except BundleError:
        return
    for _, array in tensors.values():
        assert array.nbytes <= len(data)
        assert not array.flags.writeable
        array.tobytes()
    rows = len(tensors["ids"][1]) if "ids" in tensors and tensors["ids"][1].ndim else 0
    extents = tensors["codes"][1].shape[1:] if "codes" in tensors else ()
    for codec in CODECS.values():
        for dim in {extent * step for extent in extents for step in (1, 2, 4, 16)}:
            try:
                found = map_tensors(path, ShardShape(codec, dim, "bias" in tensors, 64), rows)
            except BundleError:
                continue
            assert len(found["ids"]) == rows
            with suppress(BundleError):
                sizes = np.diff(
                    Shard(path, ShardShape(codec, dim, "bias" in tensors, 64, 0, True, True), rows).tile_ends
                )
                assert ((sizes >= 1) & (sizes <= 128)).all()


def tombstones(data: bytes) -> None:
    """A tombstones file: as many bits as its entry says, none of them beyond the last row."""
    path = _written("marks.safetensors", data) / "marks.safetensors"
    try:
        _, bits = read_tensors(path).get(TENSOR, ("", np.zeros(0, np.uint8)))
    except BundleError:
        return
    most = 8 * bits.size
    for rows in {1, most // 2, most - 1, most, most + 1}:
        for deleted in (1, rows):
            if not 1 <= deleted <= rows:
                continue
            try:
                found = Tombstones.load(path.parent, TombstonesEntry(path.name, rows, len(data), "", deleted))
            except BundleError:
                continue
            numbers = np.arange(rows + 3)
            marks = found.marks(numbers)
            assert int(marks.sum()) == deleted
            assert not marks[rows:].any()
            live = found.live(0, rows)
            assert live is not None
            np.testing.assert_array_equal(live, ~marks[:rows])


def manifest(data: bytes) -> None:
    """A ``manifest.json``: names that stay inside, sizes that are sizes; verifying it finds a missing file at most."""
    folder = _written(MANIFEST, data)
    try:
        found = Manifest.load(folder)
    except BundleError:
        return
    assert found.dim >= 1
    for name, entry in found.files.items():
        assert (folder / name).is_relative_to(folder)
        assert ".." not in name.split("/")
        assert entry.bytes >= 0
        assert isinstance(entry.sha256, str)
    with suppress(BundleError):
        found.verify(folder)
    assert found.prompt.max_length >= 1
    json.dumps(found.provenance)


def request(data: bytes) -> None:
    """The body of a request: within the limits, finite vectors."""
    try:
        found = Question.parse(data, _LIMITS)
    except (UsageError, BudgetError):
        return
    assert 1 <= len(found) <= _LIMITS.max_items
    assert 1 <= found.k <= _LIMITS.max_answer_users
    if found.source == "item_vectors":
        assert np.isfinite(found.items).all()


KINDS: dict[str, Callable[[bytes], None]] = {
    "layout": layout,
    "shard": shard,
    "tombstones": tombstones,
    "manifest": manifest,
    "request": request,
}
