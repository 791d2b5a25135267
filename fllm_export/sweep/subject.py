"""What a sweep is about: fp32 rows, the items that are asked, and where both came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.calibration.directions import Directions
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.row_form import RowForm, gains_by_data
from fllm_export.checkpoint.vector_files import open_vectors
from fllm_export.directory_kinds import BUNDLE, CHECKPOINT, KINDS, USER_TABLE, kind_of
from fllm_export.errors import UsageError
from fllm_export.extras import require
from fllm_export.item_texts import ItemTexts
from fllm_export.manifest import Manifest
from fllm_export.progress import Progress
from fllm_export.runtime.encoder import Encoder
from fllm_export.sweep.truth import Corpus
from fllm_export.table.codec_names import CodecName
from fllm_export.table.table import LabelledRows, Table

if TYPE_CHECKING:
    from fllm_export.checkpoint.users import UserRows

F32 = npt.NDArray[np.float32]

_VECTOR_FILES = (".npy", ".safetensors", ".fbin")
_TEXTS_MAX = 1_024
_OTHERS_MAX = 4_096
_ROWS_MEASURED = 1 << 18
_CHUNK_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class Subject:
    """Rows and items.

    Attributes:
        corpus: the rows, and the items that are asked.
        others: further item vectors [n, d], from which sketches and transforms are chosen; None where there are
            none, so that no item that is asked shapes what answers it.
        source: where the rows came from, for people.
        reference: what recall is measured against, for people.
        checkpoint: whether they are the rows of a checkpoint, which ``build`` stores in its own way. All others are
            stored as ``users create`` does.
    """

    corpus: Corpus
    others: F32 | None
    source: str
    reference: str
    checkpoint: bool = False

    @property
    def dim(self) -> int:
        """Dimension of a row."""
        return int(self.corpus.rows.shape[1])

    @cached_property
    def directions(self) -> Directions:
        """The directions that matter most, by the other items and by up to 2^18 rows, evenly spread.

        Raises:
            UsageError: there are no other items.
        """
        rows = self.corpus.rows
        measured = rows[:: -(-len(rows) // _ROWS_MEASURED)]
        chunks = (measured[at : at + _CHUNK_ROWS] for at in range(0, len(measured), _CHUNK_ROWS))
        return Directions.of(self.moments, Moments.of(chunks))

    @cached_property
    def moments(self) -> Moments:
        """The moments of the other items.

        Raises:
            UsageError: there are no other items.
        """
        return Moments.of(() if self.others is None else (self.others,))

    def form(self, quant: CodecName, dim: int) -> RowForm:
        """Return how rows are stored in a codec and a dimension: those of a checkpoint as ``build`` would."""
        enough = self.checkpoint and self.others is not None and len(self.others) >= dim
        by_data = enough and gains_by_data(quant, cut=dim < self.dim)
        return RowForm(quant, dim, "data" if by_data else "nearest")

    @property
    def cut_dim(self) -> int:
        """The largest dimension that rows can be cut to, 0 where there is no other item to choose directions by."""
        return 0 if self.others is None else min(len(self.others), self.directions.rank)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What tells this subject from others, JSON-ready."""
        rows, bias, items = self.corpus
        return {
            "rows": len(rows),
            "dim": self.dim,
            "bias": bias is not None,
            "items": len(items),
            "rows_sha256": _sha256(rows) if bias is None else _sha256(rows, bias),
            "items_sha256": _sha256(items),
            "others_sha256": None if self.others is None else _sha256(self.others),
            "source": self.source,
            "reference": self.reference,
            "stored_as": "build" if self.checkpoint else "users create",
        }


def open_subject(source: Path, items: Path, count: int, threads: int, progress: Progress) -> Subject:
    """Open what is swept.

    Args:
        source: a file of vectors, a user table, a bundle or a checkpoint.
        items: a file of item texts, for a bundle or a checkpoint, or of item vectors.
        count: number of items that are asked; of more, as many are drawn, and up to 4,096 of those left over (1,024
            where they are texts) are used to choose sketches and transforms.
        threads: threads of an encoder.
        progress: told of every stage.

    Raises:
        UsageError: the source is none of these, or the items do not belong to it.
        BundleError: a file is damaged.
        HardwareError: an extra is missing.
    """
    if source.is_file():
        users = open_vectors([source])
        rows, bias = _read(users, progress), users.bias
        return _subject(rows, bias, _vectors(items, users.dim), count, source.name, "the fp32 rows")
    kind = kind_of(source)
    if kind is USER_TABLE:
        return _of_table(source, None, source.name, items, count)
    if kind is BUNDLE:
        manifest = Manifest.load(source)
        encoder = None if _holds_vectors(items) else Encoder(source, manifest.prompt, manifest.dim, threads)
        return _of_table(source / "users", encoder, source.name, items, count)
    if kind is CHECKPOINT:
        return _of_checkpoint(source, items, count, progress)
    raise UsageError(
        f"{source} is not a file of vectors, a user table, a bundle or a checkpoint",
        expected=f"a file, or a directory with one of {', '.join(kind.marker for kind in KINDS)}",
    )


def _of_table(directory: Path, encoder: Encoder | None, name: str, items: Path, count: int) -> Subject:
    table = Table(directory)
    layout = table.layout
    rows, bias = _filled(table.labelled_chunks(), layout.rows, layout.item_dim, bias=layout.bias)
    if encoder is None:
        vectors = _vectors(items, layout.item_dim)
    else:
        vectors = encoder.encode(encoder.tokenize(ItemTexts.load(items).sample(count + _TEXTS_MAX)))
    finest = layout.codec if layout.refinement is None else f"{layout.refinement.codec} refinement"
    return _subject(rows, bias, vectors, count, name, f"the {finest} rows of {name}, decoded to fp32")


def _of_checkpoint(directory: Path, items: Path, count: int, progress: Progress) -> Subject:
    from fllm_export.checkpoint.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(directory)
    model = require("fllm_export.checkpoint.adapted").load_unmerged(checkpoint)
    users = model.users
    if _holds_vectors(items):
        vectors = _vectors(items, users.dim)
    else:
        progress("fp32 item vectors", 0, 1)
        vectors = model.item_vectors(ItemTexts.load(items).sample(count + _TEXTS_MAX))
        progress("fp32 item vectors", 1, 1)
    rows = _read(users, progress)
    found = _subject(rows, users.bias, vectors, count, directory.name, "the fp32 checkpoint")
    return replace(found, checkpoint=True)


def _subject(rows: F32, bias: F32 | None, vectors: F32, count: int, source: str, reference: str) -> Subject:
    order = np.random.default_rng(0).permutation(len(vectors))
    asked, others = np.sort(order[:count]), np.sort(order[count : count + _OTHERS_MAX])
    return Subject(
        Corpus(rows, bias, np.ascontiguousarray(vectors[asked])),
        np.ascontiguousarray(vectors[others]) if len(others) else None,
        source,
        reference,
    )


def _holds_vectors(items: Path) -> bool:
    return items.suffix.lower() in _VECTOR_FILES


def _vectors(items: Path, dim: int) -> F32:
    if not _holds_vectors(items) and items.suffix.lower() != ".parquet":
        raise UsageError(
            f"{items} holds no vectors, and there is no encoder for texts",
            expected="item vectors (.npy, .parquet, .safetensors or .fbin)",
            fix="To sweep with item texts, specify a checkpoint or a bundle",
        )
    vectors = open_vectors([items])
    return arguments.vectors(vectors.read(0, vectors.rows), str(items), dim)


def _read(users: UserRows, progress: Progress) -> F32:
    rows = np.empty((users.rows, users.dim), np.float32)
    done = 0
    for chunk in users.chunks():
        rows[done : done + len(chunk)] = chunk
        done += len(chunk)
        progress("rows", done, users.rows)
    return rows


def _filled(chunks: Iterable[LabelledRows], count: int, dim: int, *, bias: bool) -> tuple[F32, F32 | None]:
    """Return rows and biases in the order of their ids, which does not depend on how the table was written."""
    ids, rows = np.empty(count, np.int64), np.empty((count, dim), np.float32)
    biases = np.empty(count, np.float32) if bias else None
    done = 0
    for numbers, part, offsets in chunks:
        window = slice(done, done + len(part))
        ids[window], rows[window] = numbers, part
        if biases is not None:
            biases[window] = offsets
        done += len(part)
    order = np.argsort(ids)
    return rows[order], None if biases is None else biases[order]


def _sha256(*arrays: F32) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array, "<f4").data.cast("B"))
    return digest.hexdigest()
