"""An index of a recommender's items that new items are pushed into: exact in NumPy, FAISS, or usearch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from fllm_export import arguments
from fllm_export.checkpoint.tensors import open_tensors
from fllm_export.errors import BundleError, HardwareError, UsageError
from fllm_export.files import publish

Ids = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]


class ItemIndex(Protocol):
    """Items by id, searched by inner product. To push an item twice has the effect of pushing it once."""

    dim: int

    def __len__(self) -> int: ...

    def push(self, item_ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Add items, or replace those that are there; of an id that occurs twice, the last vector counts.

        Args:
            item_ids: int64 [n].
            vectors: float32 [n, d].

        Raises:
            UsageError: shapes or types do not go together.
        """
        ...

    def search(self, users: npt.ArrayLike, k: int) -> tuple[Ids, F32]:
        """Return the best items of user vectors [B, d]: ids int64 and inner products float32 [B, k], best first."""
        ...

    def save(self, path: Path) -> None:
        """Write one file, all or nothing."""
        ...


class ExactIndex:
    """All inner products, in NumPy; the reference for the other kinds, and enough for a few hundred thousand items.

    Args:
        item_ids: each once, int64 [n].
        vectors: float32 [n, d].
    """

    def __init__(self, item_ids: Ids, vectors: F32) -> None:
        self._ids, self._vectors = item_ids, vectors
        self.dim = int(vectors.shape[1])

    @classmethod
    def load(cls, path: Path) -> ExactIndex:
        """Read the tensors ``item_ids`` and ``items`` of a safetensors file, which may be a recommender's.

        Raises:
            BundleError: the file is damaged or lacks a tensor, or an id occurs twice.
        """
        tensors = open_tensors(path)
        if "items" not in tensors or "item_ids" not in tensors:
            raise BundleError(f"{path} holds {', '.join(sorted(tensors))}", expected="the tensors items and item_ids")
        tensors["items"].expect((None, None))
        tensors["item_ids"].expect((tensors["items"].shape[0],), ids=True)
        try:
            ids = arguments.unique_ids(tensors["item_ids"].read_ids(), "item_ids", tensors["items"].shape[0])
        except UsageError as error:
            raise BundleError(f"{path}: {error.found}", expected=error.expected) from error
        return cls(ids, tensors["items"].read())

    def __len__(self) -> int:
        return len(self._ids)

    def push(self, item_ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Add or replace items, as :class:`ItemIndex` says."""
        ids, rows = _checked(item_ids, vectors, self.dim)
        stays = ~np.isin(self._ids, ids)
        self._ids = np.concatenate([self._ids[stays], ids])
        self._vectors = np.concatenate([self._vectors[stays], rows])

    def search(self, users: npt.ArrayLike, k: int) -> tuple[Ids, F32]:
        """Return the best items; equal scores rank by item id."""
        scores = arguments.vectors(users, "users", self.dim) @ self._vectors.T
        order = np.lexsort((np.broadcast_to(self._ids, scores.shape), -scores), axis=1)[:, : min(k, len(self))]
        return self._ids[order], np.take_along_axis(scores, order, 1)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        with publish(path) as file:
            file.write(save({"item_ids": self._ids, "items": np.ascontiguousarray(self._vectors)}))


class FaissIndex:
    """FAISS's flat index by inner product, with ids (``IndexIDMap2``). Exact; replacing an item scans the ids.

    Args:
        index: an ``IndexIDMap2``.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self.dim = int(index.d)

    @classmethod
    def empty(cls, dim: int) -> FaissIndex:
        """Return an index without items."""
        faiss = _library("faiss", "faiss-cpu")
        return cls(faiss.IndexIDMap2(faiss.IndexFlatIP(dim)))

    @classmethod
    def load(cls, path: Path) -> FaissIndex:
        """Read a file that :meth:`save` wrote.

        Raises:
            BundleError: FAISS cannot read it, or it is an index of another type.
        """
        faiss = _library("faiss", "faiss-cpu")
        try:
            found = faiss.deserialize_index(np.fromfile(path, np.uint8))
        except RuntimeError as error:
            raise BundleError(f"{path} is not a FAISS index", fix="Remove it, and it is made again") from error
        if not isinstance(found, faiss.IndexIDMap2) or found.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise BundleError(f"{path} holds a {type(found).__name__}", expected="an IndexIDMap2 by inner product")
        return cls(found)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def push(self, item_ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Add or replace items, as :class:`ItemIndex` says."""
        faiss = _library("faiss", "faiss-cpu")
        ids, rows = _checked(item_ids, vectors, self.dim)
        there = ids[np.isin(ids, faiss.vector_to_array(self._index.id_map))]
        if len(there):
            self._index.remove_ids(faiss.IDSelectorBatch(there))
        self._index.add_with_ids(np.ascontiguousarray(rows), ids)

    def search(self, users: npt.ArrayLike, k: int) -> tuple[Ids, F32]:
        """Return the best items, as :class:`ItemIndex` says."""
        scores, ids = self._index.search(arguments.vectors(users, "users", self.dim), min(k, len(self)))
        return ids.astype(np.int64), scores.astype(np.float32)

    def save(self, path: Path) -> None:
        """Write FAISS's own format."""
        with publish(path) as file:
            file.write(_library("faiss", "faiss-cpu").serialize_index(self._index).tobytes())


class UsearchIndex:
    """usearch's HNSW graph by inner product, in float32: approximate, and quick to grow.

    Args:
        index: a ``usearch.index.Index`` by inner product.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self.dim = int(index.ndim)

    @classmethod
    def empty(cls, dim: int) -> UsearchIndex:
        """Return an index without items."""
        return cls(_library("usearch.index", "usearch").Index(ndim=dim, metric="ip", dtype="f32"))

    @classmethod
    def load(cls, path: Path) -> UsearchIndex:
        """Read a file that :meth:`save` wrote.

        Raises:
            BundleError: usearch cannot read it, or it is an index of another metric.
        """
        library = _library("usearch.index", "usearch")
        try:
            found = library.Index.restore(path.read_bytes())
        except (RuntimeError, ValueError) as error:
            raise BundleError(f"{path} is not a usearch index", fix="Remove it, and it is made again") from error
        if found is None or found.metric_kind != library.MetricKind.IP:
            raise BundleError(f"{path} is not a usearch index by inner product", fix="Remove it, and it is made again")
        return cls(found)

    def __len__(self) -> int:
        return len(self._index)

    def push(self, item_ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Add or replace items, as :class:`ItemIndex` says."""
        ids, rows = _checked(item_ids, vectors, self.dim)
        keys = ids.astype(np.uint64)
        there = keys[np.asarray(self._index.contains(keys), bool)]
        if len(there):
            self._index.remove(there)
        self._index.add(keys, rows)

    def search(self, users: npt.ArrayLike, k: int) -> tuple[Ids, F32]:
        """Return good items, as :class:`ItemIndex` says; the graph may miss some.

        Where it reaches fewer than ``k`` items from a user, as it may after items were replaced, all are scored.
        """
        rows, most = arguments.vectors(users, "users", self.dim), min(k, len(self))
        ids, scores = self._found(rows, most)
        short = (ids < 0).any(1)
        if short.any():
            ids[short], scores[short] = self._found(rows[short], most, exact=True)
        return ids, scores

    def _found(self, rows: F32, k: int, exact: bool = False) -> tuple[Ids, F32]:
        """Return ids and scores, [B, k]; -1 and minus infinity in the places that usearch leaves empty."""
        found = self._index.search(rows, k, exact=exact)
        keys, distances = (np.asarray(part).reshape(len(rows), -1) for part in (found.keys, found.distances))
        # Only an answer to several users has counts; that to one ends with the last item found.
        counts = np.reshape(getattr(found, "counts", keys.shape[1]), (-1, 1))
        filled = np.arange(k) < counts
        within = filled[:, : keys.shape[1]]
        ids, scores = np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), -np.inf, np.float32)
        # usearch's distance is 1 minus the inner product.
        ids[filled], scores[filled] = keys[within].astype(np.int64), 1 - distances[within]
        return ids, scores

    def save(self, path: Path) -> None:
        """Write usearch's own format."""
        with publish(path) as file:
            file.write(bytes(self._index.save()))


def open_index(path: str | Path, item_ids: npt.ArrayLike, items: npt.ArrayLike) -> ItemIndex:
    """Open an index file, or make an index of a recommender's items where there is no file.

    Args:
        path: ends in ``.safetensors`` (exact, NumPy), ``.faiss`` or ``.usearch``. It is not written here.
        item_ids: of the recommender, int64 [I].
        items: its vectors, float32 [I, d].

    Raises:
        UsageError: the ending is another.
        BundleError: the file is damaged, or holds vectors of another dimension.
        HardwareError: the library is not installed.
    """
    file = arguments.path(path, "path")
    if file.suffix not in INDEX_ENDINGS:
        raise UsageError(f"{file} ends in {file.suffix!r}", expected="one of " + ", ".join(INDEX_ENDINGS))
    rows = arguments.numbers(items, "items")
    dim = int(rows.shape[1])
    if file.exists():
        loaders: dict[str, Any] = {".safetensors": ExactIndex, ".faiss": FaissIndex, ".usearch": UsearchIndex}
        index: ItemIndex = loaders[file.suffix].load(file)
        if index.dim != dim:
            raise BundleError(f"{file} holds vectors of dimension {index.dim}", expected=f"{dim}, as the recommender")
        return index
    ids, vectors = _checked(item_ids, rows, dim)
    if file.suffix == ".safetensors":
        return ExactIndex(ids, vectors)
    made: ItemIndex = FaissIndex.empty(dim) if file.suffix == ".faiss" else UsearchIndex.empty(dim)
    made.push(ids, vectors)
    return made


INDEX_ENDINGS = (".safetensors", ".faiss", ".usearch")


def _checked(item_ids: Any, vectors: Any, dim: int) -> tuple[Ids, F32]:
    """Return ids and vectors, each id once, with its last vector."""
    rows = arguments.vectors(vectors, "vectors", dim)
    ids = arguments.ids(item_ids, "item_ids", len(rows))
    _, last = np.unique(ids[::-1], return_index=True)
    kept = np.sort(len(ids) - 1 - last)
    return ids[kept], rows[kept]


def _library(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise HardwareError(
            f"this kind of index needs the package `{package}`, which is not installed",
            fix="Run pip install 'fllm-export[onboard]', or use an index that ends in .safetensors",
        ) from error
