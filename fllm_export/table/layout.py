"""``table.json``: what a table holds and which shards, in order, hold it."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fllm_export.directory_kinds import USER_TABLE, refuse_other_kind
from fllm_export.errors import BundleError
from fllm_export.files import json_text, publish_text
from fllm_export.link import EXPONENTIAL, Link
from fllm_export.strict_json import read_object, read_versioned
from fllm_export.table.bit_planes import BLOCK_ROWS, GROUP_DIMS, whole_groups
from fllm_export.table.codec_names import REFINE_CODECS
from fllm_export.table.codecs import CODECS
from fllm_export.table.options import SHARD_BYTES

FORMAT_VERSION = 1
FILE_NAME = USER_TABLE.marker
PREVIOUS_NAME = "table.previous.json"
"""The layout before the one in ``table.json``, for readers that find that one unreadable."""
GENERATION_MAX = 1 << 53
"""The largest that may be given: every reader of JSON holds it exactly, and there is room to count on."""

LINK, REFINEMENT, TILE_ENDS, TOMBSTONES = "link", "refinement", "tile_ends", "tombstones"
READER_FEATURES: frozenset[str] = frozenset({LINK, REFINEMENT, TILE_ENDS, TOMBSTONES})
"""Features that this reader knows. A table names those that a reader must know to read it right."""

_MOST = (1 << 63) - 1
_TILE_BYTES = 8 << 20
_TILE_ROWS_MAX = 65_536
_TILE_ROWS_MIN = 1_024


@dataclass(frozen=True)
class ShardEntry:
    """One shard as the table knows it."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class TombstonesEntry(ShardEntry):
    """The file that marks deleted rows, one bit per stored row in scan order.

    Its ``rows`` are the stored rows that have a bit; later ones, which were appended since, are not deleted.

    Attributes:
        deleted: bits that are set, at least 1.
    """

    deleted: int


@dataclass(frozen=True)
class RefinementLayout:
    """The refinement rows: each row of the table once more, in more bits, for those that are ranked again.

    Attributes:
        codec: of these rows.
        dim: of these rows and of item vectors; the table's own rows have the first ``TableLayout.dim`` dimensions.
        shards: one for each shard of the table, with the same rows in the same order.
    """

    codec: str
    dim: int
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True)
class TableLayout:
    """The table's shape.

    Attributes:
        codec: name of the codec of all rows.
        dim: dimension of a user row.
        rows: users: the rows of all shards that are not deleted.
        tile_rows: rows of a tile; the last has what is left, and uneven ones at most twice as many. Ids ascend in each.
        bias: whether each row has a bias.
        generation: version number of the table, 1 at first.
        sketch_dims: dimensions of the sketch, a multiple of 16; 0 when the rows have none.
        tile_bounds: whether tiles hold rows that lie together, and have bounds.
        shards: in scan order.
        identity: a hash of what the table was at first, by which a bundle knows its own table however it has changed
            since; empty in tables that were written before there was one.
        refinement: the refinement rows, or None.
        tombstones: the file that marks deleted rows; None when no row is deleted.
        histories: files of the items that users' rows are made of, each overriding those before it
            (:mod:`fllm_export.table.histories`); their ``rows`` are users. Searching does not need them.
        shard_bytes: size of a shard at most, which changes and compactions keep to.
        link: how scores become probabilities.
        tile_ends: whether shards may say where their tiles end.
    """

    codec: str
    dim: int
    rows: int
    tile_rows: int
    bias: bool
    generation: int
    sketch_dims: int
    tile_bounds: bool
    shards: tuple[ShardEntry, ...]
    identity: str = ""
    refinement: RefinementLayout | None = None
    tombstones: TombstonesEntry | None = None
    histories: tuple[ShardEntry, ...] = ()
    shard_bytes: int = SHARD_BYTES
    link: Link = EXPONENTIAL
    tile_ends: bool = False

    @property
    def stored_rows(self) -> int:
        """Rows of all shards, deleted ones included."""
        return sum(shard.rows for shard in self.shards)

    @property
    def item_dim(self) -> int:
        """Dimension of an item vector: that of the refinement rows where there are any."""
        return self.dim if self.refinement is None else self.refinement.dim

    @property
    def files(self) -> tuple[ShardEntry, ...]:
        """All files beside ``table.json``: shards, those of the refinement rows, tombstones and histories."""
        finer = () if self.refinement is None else self.refinement.shards
        return (*self.shards, *finer, *(() if self.tombstones is None else (self.tombstones,)), *self.histories)

    @property
    def refinement_facts(self) -> dict[str, str]:
        """What there is to say of the refinement rows, in a line for people; empty where there are none."""
        if self.refinement is None:
            return {}
        size = sum(file.bytes for file in self.refinement.shards)
        return {"refinement rows": f"{self.refinement.codec}, {self.refinement.dim} dimensions, {size:,} bytes"}

    @property
    def reader_features(self) -> list[str]:
        """What a reader must know to read the table right, sorted."""
        members = self._members()
        return [name for name in sorted(READER_FEATURES) if name in members]

    def save(self, directory: Path) -> None:
        """Publish ``table.json``; until it is there, the directory is not a table."""
        publish_text(directory / FILE_NAME, self.text())

    def text(self) -> str:
        """Return ``table.json``."""
        document = {
            "format_version": FORMAT_VERSION,
            "reader_features": self.reader_features,
            **self._members(),
        }
        return json_text({**document, "sha256": _digest(document)})

    def born(self) -> TableLayout:
        """Return a new table's layout with its identity."""
        facts = {**self._members(), "generation": None, "identity": None}
        return replace(self, identity=_digest(facts))

    def _members(self) -> dict[str, Any]:
        members = asdict(self)
        for name in (REFINEMENT, TOMBSTONES, TILE_ENDS, "histories"):
            if not members[name]:
                del members[name]
        del members[LINK]
        if self.link != EXPONENTIAL:
            members[LINK] = self.link.to_json()
        if self.shard_bytes == SHARD_BYTES:
            del members["shard_bytes"]
        return members

    @classmethod
    def load(cls, directory: Path, *, fall_back: bool = True) -> TableLayout:
        """Read and check ``table.json``.

        Where it cannot be read as JSON, the layout before it is taken from :data:`PREVIOUS_NAME`, with a warning.

        Args:
            directory: holds ``table.json``.
            fall_back: whether the layout before may be taken.

        Raises:
            BundleError: it is missing, is not JSON, is of a newer format or contradicts itself.
        """
        path = directory / FILE_NAME
        if not path.is_file():
            refuse_other_kind(directory, USER_TABLE)
            raise BundleError(
                f"{directory} holds no {FILE_NAME}", expected="a user table", fix="Specify the directory that holds it"
            )
        try:
            return cls._read(path)
        except BundleError as error:
            previous = directory / PREVIOUS_NAME
            if not fall_back or not previous.is_file() or _is_object(path):
                raise
            layout = cls._read(previous)
            warnings.warn(f"{error} Generation {layout.generation} is read from {previous} instead.", stacklevel=2)
            return layout

    @classmethod
    def _read(cls, path: Path) -> TableLayout:
        document = read_versioned(path, FORMAT_VERSION, READER_FEATURES)
        layout = cls._parse(document, path)
        layout._check(path)
        return layout

    @classmethod
    def _parse(cls, document: dict[str, Any], path: Path) -> TableLayout:
        entries = _entries(document, "shards", path)
        fields = {"codec": str, "dim": int, "rows": int, "tile_rows": int, "bias": bool, "generation": int}
        known = {key: _typed(document, key, kind, path) for key, kind in fields.items()}
        sketch_dims = _typed(document, "sketch_dims", int, path) if "sketch_dims" in document else 0
        tile_bounds = _typed(document, "tile_bounds", bool, path) if "tile_bounds" in document else False
        identity = _typed(document, "identity", str, path) if "identity" in document else ""
        shard_bytes = _typed(document, "shard_bytes", int, path) if "shard_bytes" in document else SHARD_BYTES
        return cls(
            **known,
            sketch_dims=sketch_dims,
            tile_bounds=tile_bounds,
            shards=entries,
            identity=identity,
            refinement=_refinement(document, path),
            tombstones=_tombstones(document, path),
            histories=_entries(document, "histories", path) if "histories" in document else (),
            shard_bytes=shard_bytes,
            link=_link(document, path),
            tile_ends=_tile_ends(document, path),
        )

    @staticmethod
    def verify(directory: Path) -> int:
        """Check ``table.json`` against the hash that it carries of itself, and return its bytes.

        Raises:
            BundleError: it is not as it was written.
        """
        path = directory / FILE_NAME
        document = read_versioned(path, FORMAT_VERSION, READER_FEATURES)
        carried = document.pop("sha256", None)
        # Tables that were written before there were identities carry no hash.
        if (carried is not None or "identity" in document) and carried != _digest(document):
            raise BundleError(
                f"{path} is not as it was written: its `sha256` is {carried!r}",
                expected=_digest(document),
                fix="Copy the file again, or build the table again",
            )
        return path.stat().st_size

    def _check(self, path: Path) -> None:
        if self.codec not in CODECS:
            raise BundleError(f"{path}: codec is {self.codec!r}", expected="one of " + ", ".join(CODECS))
        for key in ("dim", "rows", "tile_rows", "generation", "shard_bytes"):
            value = getattr(self, key)
            if not 1 <= value <= _MOST:
                expected = "at least 1" if value < 1 else "at most 2^63 - 1"
                raise BundleError(f"{path}: {key} is {value}", expected=expected)
        self._check_blocks(path)
        if self.refinement is not None:
            self._check_refinement(self.refinement, path)
        for shard in self.files:
            if Path(shard.name).name != shard.name or shard.name in ("", ".", "..") or "\0" in shard.name:
                raise BundleError(f"{path}: shard name {shard.name!r}", expected="a file name without folders")
            if shard.rows < 1:
                raise BundleError(f"{path}: shard {shard.name} has {shard.rows} rows", expected="at least 1")
        if self.tombstones is not None:
            self._check_tombstones(self.tombstones, path)
        total = self.stored_rows - (0 if self.tombstones is None else self.tombstones.deleted)
        if total != self.rows:
            raise BundleError(f"{path}: the shards hold {total} rows", expected=f"{self.rows}, as `rows` says")

    def _check_tombstones(self, marked: TombstonesEntry, path: Path) -> None:
        if not 1 <= marked.deleted <= marked.rows <= self.stored_rows:
            raise BundleError(
                f"{path}: {marked.deleted} of {marked.rows} rows are deleted",
                expected=f"at most the {self.stored_rows} rows of all shards",
            )

    def _check_refinement(self, refinement: RefinementLayout, path: Path) -> None:
        if refinement.codec not in REFINE_CODECS:
            raise BundleError(
                f"{path}: the codec of the refinement is {refinement.codec!r}",
                expected="one of " + ", ".join(REFINE_CODECS),
            )
        if refinement.dim < self.dim:
            raise BundleError(
                f"{path}: the refinement has {refinement.dim} dimensions",
                expected=f"at least the {self.dim} of the rows",
            )
        found, expected = ([shard.rows for shard in shards] for shards in (refinement.shards, self.shards))
        if found != expected:
            raise BundleError(
                f"{path}: the shards of the refinement hold {_shown(found)} rows",
                expected=f"{_shown(expected)}, as the shards of the table",
            )

    def _check_blocks(self, path: Path) -> None:
        """Check what depends on rows that are stored in blocks: the sketch's, or the codec's own."""
        whole = whole_groups(self.dim)
        if self.sketch_dims % GROUP_DIMS or not 0 <= self.sketch_dims <= whole:
            raise BundleError(
                f"{path}: sketch_dims is {self.sketch_dims}", expected=f"a multiple of {GROUP_DIMS} from 0 to {whole}"
            )
        in_blocks = CODECS[self.codec].in_blocks
        if in_blocks and self.sketch_dims:
            raise BundleError(f"{path}: sketch_dims is {self.sketch_dims}", expected=f"0, as codec is {self.codec}")
        if (in_blocks or self.sketch_dims) and self.tile_rows % BLOCK_ROWS:
            raise BundleError(f"{path}: tile_rows is {self.tile_rows}", expected=f"a multiple of {BLOCK_ROWS}")


def _digest(document: dict[str, Any]) -> str:
    """Return the SHA-256 of a document as JSON with sorted names and without spaces, in hexadecimal."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def tile_rows(row_bytes: int, shard_bytes: int) -> int:
    """Return a power of two of about 8 MiB: few enough rows for a budget to stop at, enough to amortise a call."""
    rows = max(_TILE_ROWS_MIN, min(_TILE_ROWS_MAX, _TILE_BYTES // row_bytes))
    return 1 << max(0, min(rows, shard_bytes // row_bytes).bit_length() - 1)


def _entries(document: dict[str, Any], key: str, path: Path) -> tuple[ShardEntry, ...]:
    entries = []
    for number, shard in enumerate(_typed(document, key, list, path)):
        if not isinstance(shard, dict):
            raise BundleError(f"{path}: {key}[{number}] is {shard!r}", expected="an object")
        fields = {"name": str, "rows": int, "bytes": int, "sha256": str}
        entries.append(ShardEntry(**{name: _typed(shard, name, kind, path) for name, kind in fields.items()}))
    return tuple(entries)


def _refinement(document: dict[str, Any], path: Path) -> RefinementLayout | None:
    """Return the refinement of a document. A reader that does not know it would take item vectors of another dim."""
    if not _announced(document, REFINEMENT, path):
        return None
    found = _typed(document, REFINEMENT, dict, path)
    codec, dim = _typed(found, "codec", str, path), _typed(found, "dim", int, path)
    return RefinementLayout(codec, dim, _entries(found, "shards", path))


def _link(document: dict[str, Any], path: Path) -> Link:
    """Return the link of a document. A reader that does not know it would give other probabilities."""
    return Link.read(document[LINK], str(path)) if _announced(document, LINK, path) else EXPONENTIAL


def _tile_ends(document: dict[str, Any], path: Path) -> bool:
    """Return whether tiles may be of uneven size. A reader that does not know it would cut others."""
    found = _announced(document, TILE_ENDS, path)
    for key in (TILE_ENDS, "tile_bounds") if found else ():
        if document.get(key) is not True:
            raise BundleError(f"{path}: `{key}` is {document.get(key)!r}", expected="true, as tiles have ends")
    return found


def _announced(document: dict[str, Any], feature: str, path: Path) -> bool:
    """Whether a document has a member that readers must know; it is listed as a reader feature then, and only then."""
    announced = feature in document.get("reader_features", [])
    if announced != (feature in document):
        raise BundleError(
            f"{path}: `{feature}` is " + ("missing" if announced else "not one of the reader features"),
            expected="both or neither",
        )
    return announced


def _is_object(path: Path) -> bool:
    try:
        read_object(path)
    except BundleError:
        return False
    return True


def _tombstones(document: dict[str, Any], path: Path) -> TombstonesEntry | None:
    """Return the entry of the tombstones. A reader that does not know them would return deleted users."""
    if not _announced(document, TOMBSTONES, path):
        return None
    found = _typed(document, TOMBSTONES, dict, path)
    fields = {"name": str, "rows": int, "bytes": int, "sha256": str, "deleted": int}
    return TombstonesEntry(**{name: _typed(found, name, kind, path) for name, kind in fields.items()})


def _shown(counts: list[int]) -> str:
    return ", ".join(map(str, counts[:8])) + (", ..." if len(counts) > 8 else "")


def _typed(document: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    value = document.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BundleError(f"{path}: `{key}` is {value!r}", expected=f"a value of type {kind.__name__}")
    return value
