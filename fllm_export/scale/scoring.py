"""The users of many items, scored part by part: each part is a file that is published by one rename.

The items of a part, and the items that share a pass in it, depend on the job alone. So an interrupted job goes on, and
machines that share a job write, part for part, the same rows as one machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.engines.names import LOG_PROBS, MODES, LogProbs, Mode
from fllm_export.engines.registry import engine_name
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import json_text, sha256_file
from fllm_export.manifest import FILE_NAME as MANIFEST
from fllm_export.runtime.item_model import encoder_name
from fllm_export.runtime.places import table_of
from fllm_export.runtime.runtime import Runtime
from fllm_export.runtime.topk import TopK
from fllm_export.runtime.user_table import UserTable
from fllm_export.table.layout import TableLayout

_PASS_ITEMS = 64
_PART_ITEMS = 4096

Items = Sequence[str] | npt.NDArray[np.float32]
"""Item texts for a bundle, or item vectors [n, d] for a table."""


@dataclass(frozen=True)
class ScoreOptions:
    """What is wanted of every item.

    Attributes:
        k: users per item.
        mode: ``topk`` or ``sample``. Item number i is sampled with the seed ``seed + i``: each has its own noise.
        seed: of the mode ``sample``.
        exact: as :meth:`fllm_export.UserTable.topk`.
        log_probs: likewise.
        part_items: items per part.

    Raises:
        UsageError: a value is invalid.
    """

    k: int = 100
    mode: Mode = "topk"
    seed: int = 0
    exact: bool = True
    log_probs: LogProbs = "exact"
    part_items: int = _PART_ITEMS

    def __post_init__(self) -> None:
        for name in ("k", "part_items"):
            arguments.integer(getattr(self, name), name, least=1)
        arguments.integer(self.seed, "seed", least=0, most=(1 << 62) - 1)
        arguments.one_of(self.mode, "mode", MODES)
        arguments.one_of(self.log_probs, "log_probs", LOG_PROBS)


@dataclass(frozen=True)
class ScoreSource:
    """What scores: a bundle or a user table, which all machines of a job reach by the same path.

    Attributes:
        path: its directory.
        engine: see :meth:`fllm_export.Runtime.open`.
        encoder: likewise; for a bundle alone.
        threads: likewise.
    """

    path: Path
    engine: str | None = None
    encoder: str | None = None
    threads: int | None = None

    def open(self) -> Runtime | UserTable:
        """Open it.

        Raises:
            FllmError: it cannot be opened.
        """
        if self.takes_texts:
            return Runtime.open(self.path, engine=self.engine, encoder=self.encoder, threads=self.threads)
        return UserTable.open(self.path, engine=self.engine, threads=self.threads)

    def settled(self) -> ScoreSource:
        """Return it with the engine and the encoder that it takes here: environments of other machines decide nothing.

        Raises:
            BundleError: it is neither a bundle nor a table.
            UsageError: there is no engine of that name.
        """
        engine = engine_name(self.engine)
        if not self.takes_texts:
            return replace(self, engine=engine)
        return replace(self, engine=engine, encoder=encoder_name(self.encoder, engine))

    @property
    def takes_texts(self) -> bool:
        """Whether items are texts.

        Raises:
            BundleError: it is neither a bundle nor a table.
        """
        return table_of(self.path) != self.path

    def facts(self) -> dict[str, Any]:
        """Return what tells it from all others: hashes of what it is made of, and its generation.

        Raises:
            BundleError: it is neither a bundle nor a table, or is damaged.
        """
        layout = TableLayout.load(table_of(self.path))
        manifest = self.path / MANIFEST
        return {
            "manifest": sha256_file(manifest) if self.takes_texts else None,
            "table": layout.identity or hashlib.sha256(layout.text().encode()).hexdigest(),
            "generation": layout.generation,
            "users": layout.rows,
        }


@dataclass(frozen=True)
class ItemPart:
    """Some items that are scored together.

    Attributes:
        number: of the part, from 0.
        first: number of its first item.
        items: the items.
    """

    number: int
    first: int
    items: Items


def item_parts(items: Items, part_items: int) -> list[ItemPart]:
    """Cut items into parts."""
    return [
        ItemPart(number, first, items[first : first + part_items])
        for number, first in enumerate(range(0, len(items), part_items))
    ]


def items_hash(items: Items) -> str:
    """Return a SHA-256 of items and their order."""
    digest = hashlib.sha256()
    if isinstance(items, np.ndarray):
        digest.update(json_text({"shape": list(items.shape)}).encode())
        digest.update(np.ascontiguousarray(items, np.float32).data)
    else:
        for text in items:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
    return digest.hexdigest()


def job_facts(source: ScoreSource, items: Items, options: ScoreOptions) -> dict[str, Any]:
    """Return everything that decides what a job writes; the source is settled."""
    return {
        "source": source.facts(),
        "engine": source.engine,
        "encoder": source.encoder,
        "items": {"count": len(items), "sha256": items_hash(items)},
        "options": asdict(options),
    }


class Scorer:
    """Scores parts of one job with what it has open.

    Args:
        source: what is opened.
        options: what is wanted.
        generation: of the table that the job is about.

    Raises:
        FllmError: the source cannot be opened.
    """

    def __init__(self, source: ScoreSource, options: ScoreOptions, generation: int) -> None:
        self._opened: Any = source.open()
        self._path = source.path
        self._options = options
        self._generation = generation

    def score(self, part: ItemPart) -> list[TopK]:
        """Return the answers to the items of a part, a pass at a time.

        Raises:
            BundleError: the table is of another generation than the job began with.
            UsageError: an item is invalid, or k is more than the users of the table.
        """
        wanted, found = self._options, []
        for start in range(0, len(part.items), _PASS_ITEMS):
            items = part.items[start : start + _PASS_ITEMS]
            seeds = [wanted.seed + part.first + start + i for i in range(len(items))]
            answer: TopK = self._opened.topk(
                items, wanted.k, mode=wanted.mode, seed=seeds, exact=wanted.exact, log_probs=wanted.log_probs
            )
            if answer.generation != self._generation:
                raise BundleError(
                    f"{self._path} is of generation {answer.generation} now",
                    expected=f"{self._generation}, with which this job began",
                    fix="Score a copy of the table that does not change, or begin again",
                )
            found.append(answer)
        return found


def check_items(source: ScoreSource, items: Items) -> None:
    """Check that items are of the kind that a source takes.

    Raises:
        UsageError: they are not, or there are none.
    """
    if not len(items):
        raise UsageError("there is no item to score", expected="at least one")
    vectors = isinstance(items, np.ndarray)
    if source.takes_texts == vectors:
        kind, wanted = ("vectors", "texts for a bundle") if vectors else ("texts", "vectors for a user table")
        raise UsageError(f"{source.path} was given item {kind}", expected=f"item {wanted}")
