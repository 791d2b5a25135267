"""Writing a table from chunks of rows: one shard in memory at a time, resumable shard by shard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.arguments import integer, vectors
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish_name, publish_text, sha256_file
from fllm_export.link import EXPONENTIAL, Link
from fllm_export.progress import Progress, silent
from fllm_export.strict_json import parse
from fllm_export.system_errors import check_place
from fllm_export.table import native, refinement
from fllm_export.table.bit_planes import into_blocks
from fllm_export.table.codecs import codec
from fllm_export.table.file_names import shard_name
from fllm_export.table.footprint import row_counts
from fllm_export.table.ids import check_ids, check_unique
from fllm_export.table.layout import GENERATION_MAX, ShardEntry, TableLayout
from fllm_export.table.options import TableOptions
from fllm_export.table.refinement_maker import RefinementMaker
from fllm_export.table.rounding import Rounding, nearest
from fllm_export.table.shard import Array, Shard, ShardShape, write_shard
from fllm_export.table.shard_rows import ShardRows, in_order
from fllm_export.table.sketch_maker import SketchMaker
from fllm_export.table.tile_maker import TileMaker

LEDGER = ".writing.jsonl"
"""The record of the shards that a writer has finished."""

_OWN_FILE = re.compile(r"(refine-)?\d{5}\.safetensors|\.(refine-)?\d{5}\.safetensors\..*")

Rows = npt.NDArray[np.float32]
Chunk = tuple[npt.ArrayLike, npt.ArrayLike | None, npt.ArrayLike | None]
"""Rows [n, d], and for each row an id and a bias, or None."""


class TableWriter:
    """Encodes rows as they come and publishes a shard whenever one is full.

    Within a tile rows are stored in ascending id order, which is what breaks ties in a ranking. A directory
    left by an interrupted writer is taken up again when ``resume_key`` is the same: shards that are complete
    stay, and :attr:`rows_done` says how many leading rows the caller may skip.

    Args:
        directory: created when missing; must not hold a finished table.
        options: how rows are stored.
        dim: dimension of a row.
        scan_dim: dimension of the rows that are scanned, which are the first dimensions; all of them when not given,
            and fewer only where refinement rows keep the others.
        bias: whether rows have a bias.
        items: item vectors [n, d] like those to come, by which the sketch is chosen.
        resume_key: fingerprint of the rows; shards of another fingerprint are removed.
        rounding: how numbers become codes.
        link: how scores become probabilities.

    Raises:
        UsageError: items are invalid, or the directory holds a table, files of other origin, or cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        options: TableOptions,
        *,
        dim: int,
        scan_dim: int | None = None,
        bias: bool = False,
        items: npt.ArrayLike | None = None,
        resume_key: str | None = None,
        rounding: Rounding = nearest,
        link: Link = EXPONENTIAL,
    ) -> None:
        check_place(directory, "directory")
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"{directory} is a file", expected="a new or empty directory for the table")
        self._directory = directory
        self._codec = codec(options.quant)
        self._rounding = rounding
        self._link = link
        self._item_dim = dim
        self._dim = dim if scan_dim is None else integer(scan_dim, "scan_dim", least=1, most=dim)
        self._bias = bias
        self._refinement = RefinementMaker(options.refine, dim, self._codec, self._dim)
        self._sketch = SketchMaker(options.sketch, options.quant, self._dim, self._leading(items))
        step, rows = row_counts(options, dim, self._dim)
        self._shard_bytes = options.shard_bytes
        self.shard_rows = rows
        """Rows of a full shard."""
        self._tiles = TileMaker(options.cluster, self._dim, step)
        if (directory / "table.json").exists():
            raise UsageError(
                f"{directory} holds a table already",
                fix="Open it with UserTable.open, choose another directory, or remove it first",
            )
        directory.mkdir(parents=True, exist_ok=True)
        self._resume_key = resume_key
        self._entries = self._take_up()
        self.rows_done = sum(entry.rows for entry in self._entries)
        self._rows_seen = self.rows_done
        self._pending: list[dict[str, Array]] = []
        self._pending_rows = 0
        self._save_ledger()

    def add(self, rows: npt.ArrayLike, ids: npt.ArrayLike | None = None, bias: npt.ArrayLike | None = None) -> None:
        """Encode rows [n, d]; without ids, rows are numbered on from 0.

        Raises:
            UsageError: a type or a shape is wrong, or a row, a bias or an id is not finite or out of range; the message
                names the row.
        """
        encoded = self._encode(rows, ids, bias)
        self._rows_seen += len(encoded["ids"])
        start = 0
        while start < len(encoded["ids"]):
            stop = min(start + self.shard_rows - self._pending_rows, len(encoded["ids"]))
            self._pending.append({name: array[start:stop] for name, array in encoded.items()})
            self._pending_rows += stop - start
            start = stop
            if self._pending_rows == self.shard_rows:
                self._publish_shard()

    def finish(self, *, generation: int = 1) -> TableLayout:
        """Publish the last shard and ``table.json``, and return the layout.

        Raises:
            UsageError: no row was added, an id occurs twice, or the generation is not from 1 to 2^53.
        """
        generation = integer(generation, "generation", least=1, most=GENERATION_MAX)
        self.flush()
        if not self._entries:
            raise UsageError("no rows were given", expected="at least one user")
        shards = [self._open(entry, self._sketch.dims) for entry in self._entries]
        check_unique([np.sort(shard.ids) for shard in shards])
        layout = TableLayout(
            codec=self._codec.name,
            dim=self._dim,
            rows=sum(entry.rows for entry in self._entries),
            tile_rows=self._tiles.tile_rows,
            bias=self._bias,
            generation=generation,
            sketch_dims=self._sketch.dims,
            tile_bounds=self._tiles.clusters,
            shards=tuple(self._entries),
            refinement=self._refinement.layout,
            shard_bytes=self._shard_bytes,
            link=self._link,
            tile_ends=any(shard.uneven for shard in shards),
        )
        layout = layout.born()
        layout.save(self._directory)
        (self._directory / LEDGER).unlink(missing_ok=True)
        return layout

    def flush(self) -> None:
        """Publish the rows that wait as the last shard."""
        if self._pending_rows:
            self._publish_shard(last=True)

    def discard(self) -> None:
        """Remove what was written of a table that will not be finished, and the directory if nothing else is in it."""
        for path in self._directory.iterdir():
            if _OWN_FILE.fullmatch(path.name) or path.name == LEDGER:
                path.unlink()
        if not any(self._directory.iterdir()):
            self._directory.rmdir()

    @property
    def shards(self) -> list[tuple[ShardEntry, ShardEntry | None]]:
        """The shards that are finished, each with the file of its refinement rows where there is one."""
        finer: list[ShardEntry | None] = [*self._refinement.entries] or [None] * len(self._entries)
        return list(zip(self._entries, finer, strict=True))

    def adopt(self, shard: ShardEntry, finer: ShardEntry | None) -> None:
        """Go on after a shard that another writer has made of the next rows, whose files lie in the directory."""
        self._entries.append(shard)
        if finer is not None:
            self._refinement.entries.append(finer)
        self._rows_seen += shard.rows
        self._save_ledger()

    def seed(self, directory: Path) -> None:
        """Let a writer of another directory go on after the first shard of this one, with the same choices."""
        first = [file for file in self.shards[0] if file is not None]
        directory.mkdir(parents=True, exist_ok=True)
        for file in first:
            publish_name(self._directory / file.name, directory / file.name)
        publish_text(directory / LEDGER, self._ledger(first))

    def _encode(self, rows: npt.ArrayLike, ids: npt.ArrayLike | None, bias: npt.ArrayLike | None) -> dict[str, Array]:
        matrix = self._finite("rows (one per user)", rows, (None, self._item_dim))
        numbers = np.arange(self._rows_seen, self._rows_seen + len(matrix)) if ids is None else ids
        if self._bias != (bias is not None):
            raise UsageError(
                "bias was given" if bias is not None else "no bias was given",
                expected="bias for every row of the table, or for none",
            )
        encoded = self._codec.encode(matrix[:, : self._dim], self._rounding)
        encoded |= self._refinement.encode(matrix)
        if bias is not None:
            encoded["bias"] = self._finite("bias", bias, (len(matrix),))
        encoded["ids"] = check_ids(numbers, len(matrix), self._rows_seen)
        return encoded

    def _finite(self, name: str, values: npt.ArrayLike, shape: tuple[int | None, ...]) -> Rows:
        """Return numbers as finite float32 of a shape, in which None is any length; errors name the table's row."""
        given = np.asarray(values)
        fits = given.ndim == len(shape) and all(
            wanted in (None, found) for wanted, found in zip(shape, given.shape, strict=True)
        )
        if not fits or given.dtype.kind not in "fiu":
            words = ", ".join("n" if length is None else str(length) for length in shape)
            raise UsageError(f"{name} is {given.dtype} {list(given.shape)}", expected=f"numbers [{words}]")
        with np.errstate(over="ignore"):
            numbers = given.astype(np.float32, copy=False)
        first = _first_not_finite(numbers.reshape(len(numbers), -1 if numbers.size else 1))
        if first < len(numbers):
            at = self._rows_seen + first
            raise UsageError(
                f"{name} has a number in row {at} that is not finite",
                expected="finite numbers within float32's range",
            )
        return numbers

    def _publish_shard(self, *, last: bool = False) -> None:
        tensors = {name: np.concatenate([part[name] for part in self._pending]) for name in self._pending[0]}
        self._pending, self._pending_rows = [], 0
        if not np.all(tensors["ids"][1:] > tensors["ids"][:-1]):
            order = np.argsort(tensors["ids"], kind="stable")
            tensors = in_order(tensors, order)
        whole_table = last and not self._entries
        if not self._entries:
            self._tiles.decide(whole_table=whole_table)
        if self._tiles.clusters or self._sketch.makes(whole_table=whole_table):
            tensors = self._described(tensors, whole_table=whole_table)
        refined = self._refinement.take(tensors)
        if self._codec.in_blocks:
            tensors["codes"] = into_blocks(tensors["codes"])
        # The refinement rows first: the record of a shard vouches for both.
        self._refinement.publish(self._directory, refined)
        path = self._directory / shard_name(len(self._entries))
        size = write_shard(path, self._shape(self._sketch.dims).holding(tensors), tensors)
        self._entries.append(ShardEntry(path.name, len(tensors["ids"]), size, sha256_file(path)))
        self._save_ledger()

    def _described(self, tensors: dict[str, Array], *, whole_table: bool) -> dict[str, Array]:
        """Return a shard's tensors in tile order, with what rules rows and tiles out."""
        rows = ShardRows(self._codec, tensors, self._dim)
        beside: dict[str, Array] = {}
        if self._tiles.clusters:
            order, ends = self._tiles.tiling(rows)
            tensors = in_order(tensors, order)
            rows = ShardRows(self._codec, tensors, self._dim)
            bias = tensors["bias"].view(np.float32) if self._bias else None
            beside |= self._tiles.tensors(rows, bias, ends)
        if self._sketch.makes(whole_table=whole_table):
            beside |= self._sketch.tensors(rows)
        return {**tensors, **beside}

    def _save_ledger(self) -> None:
        publish_text(self._directory / LEDGER, self._ledger([*self._entries, *self._refinement.entries]))

    def _ledger(self, files: list[ShardEntry]) -> str:
        head = {
            "resume_key": self._resume_key,
            "sketch_dims": self._sketch.dims,
            "tile_bounds": self._tiles.clusters,
        }
        return "".join(json.dumps(line) + "\n" for line in [head, *map(asdict, files)])

    def _take_up(self) -> list[ShardEntry]:
        """Return the shards that an interrupted writer of the same rows has finished; remove all others."""
        ledger = self._directory / LEDGER
        if not ledger.exists():
            if any(self._directory.iterdir()):
                raise UsageError(f"{self._directory} is not empty", expected="a new or empty directory for the table")
            return []
        try:
            head, *lines = [parse(line) for line in ledger.read_bytes().splitlines()]
            same = self._resume_key is not None and head["resume_key"] == self._resume_key
            recorded = [ShardEntry(**line) for line in lines] if same else []
        except (ValueError, KeyError, TypeError) as error:
            again = f"Delete {self._directory} and write the table again"
            raise BundleError(f"{ledger} is damaged ({error})", expected="a record of shards", fix=again) from error
        kept = self._whole(recorded)
        if kept:
            self._tiles.clusters = head["tile_bounds"]
        if kept and head["sketch_dims"]:
            self._sketch.take_up(self._open(kept[0], head["sketch_dims"]).beside)
        names = {entry.name for entry in (*kept, *self._refinement.entries)}
        for path in self._directory.iterdir():
            if _OWN_FILE.fullmatch(path.name) and path.name not in names:
                path.unlink()
        return kept

    def _whole(self, recorded: list[ShardEntry]) -> list[ShardEntry]:
        """Return the leading shards that are intact with their refinement rows, which are taken up."""
        files = {entry.name: entry for entry in recorded}
        kept: list[ShardEntry] = []
        while (entry := files.get(shard_name(len(kept)))) is not None:
            beside = files.get(refinement.shard_name(len(kept))) if self._refinement.makes else None
            if (self._refinement.makes and beside is None) or not all(map(self._intact, filter(None, (entry, beside)))):
                break
            kept.append(entry)
            if beside is not None:
                self._refinement.entries.append(beside)
        return kept

    def _intact(self, entry: ShardEntry) -> bool:
        path = self._directory / entry.name
        return path.exists() and sha256_file(path) == entry.sha256

    def _leading(self, items: npt.ArrayLike | None) -> Rows | None:
        """Return the leading dimensions of item vectors, which are those of the rows that are scanned."""
        return None if items is None else vectors(items, "items", self._item_dim)[:, : self._dim]

    def _open(self, entry: ShardEntry, sketch_dims: int) -> Shard:
        return Shard(self._directory / entry.name, self._shape(sketch_dims), entry.rows)

    def _shape(self, sketch_dims: int) -> ShardShape:
        tiles = self._tiles
        return ShardShape(
            self._codec, self._dim, self._bias, tiles.tile_rows, sketch_dims, tiles.clusters, tiles.clusters
        )


def _first_not_finite(rows: Rows) -> int:
    """Return the number of the first row that is not finite, or their number."""
    if native.takes(rows):
        return native.first_not_finite(rows)
    finite = np.isfinite(rows).all(1)
    return len(rows) if finite.all() else int(np.argmin(finite))


def write_table(
    writer: TableWriter,
    chunks: Iterable[Chunk],
    total: int | None = None,
    progress: Progress = silent,
    *,
    generation: int = 1,
) -> TableLayout:
    """Write all chunks of (rows, ids, bias), skipping the rows that the writer has already, and finish the table.

    Raises:
        UsageError: as :meth:`TableWriter.add` and :meth:`TableWriter.finish`.
    """
    skip, done = writer.rows_done, 0
    for rows, ids, bias in chunks:
        count = len(np.asarray(rows))
        first = min(max(skip - done, 0), count)
        done += count
        if first < count:
            rest = [None if part is None else np.asarray(part)[first:] for part in (ids, bias)]
            writer.add(np.asarray(rows)[first:], *rest)
        progress("user table", done, total or done)
    return writer.finish(generation=generation)
