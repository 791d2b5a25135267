"""The part of a user table that changes it (docs/guides/living_tables.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy.typing as npt

from fllm_export import arguments
from fllm_export.table.layout import GENERATION_MAX

if TYPE_CHECKING:
    from fllm_export.table.living import LivingTable, TableChange


class LivingUsers(ABC):
    """Changes the table in a directory, and opens it again after each change.

    A call that has returned is durable, and this handle answers from the new generation. Other handles and processes
    answer from theirs until they reopen. There is one writer at a time, in whatever process; a second one is refused.
    """

    directory: Path
    _writer: LivingTable | None = None

    @abstractmethod
    def reopen(self) -> None:
        """Open again what is in the directory now."""

    def append(
        self,
        rows: npt.ArrayLike,
        ids: npt.ArrayLike,
        *,
        bias: npt.ArrayLike | None = None,
        if_generation: int | None = None,
    ) -> TableChange:
        """Add users that the table does not have.

        Args:
            rows: float32 [n, d]. Those of a bundle's table are given as training makes them; the bundle's transform
                is applied here.
            ids: integers [n], each once, none of them in the table.
            bias: float32 [n], where the table has biases.
            if_generation: refuse unless this is the table's generation.

        Returns:
            the new generation, and what the table holds now.

        Raises:
            BudgetError: no space is left, or another limit of the system is reached.
            BundleError: the table is damaged, or the system cannot write it.
            UsageError: an argument is invalid, an id is in the table, another writer is at work, or the generation is
                another.
        """
        writer, generation = self._ready(if_generation)
        return self._seen(writer.append([(rows, ids, bias)], if_generation=generation))

    def update(
        self,
        rows: npt.ArrayLike,
        ids: npt.ArrayLike,
        *,
        bias: npt.ArrayLike | None = None,
        if_generation: int | None = None,
    ) -> TableChange:
        """Replace the rows of users that the table has; otherwise as :meth:`append`.

        Raises:
            UsageError: also where an id is not in the table.
        """
        writer, generation = self._ready(if_generation)
        return self._seen(writer.update([(rows, ids, bias)], if_generation=generation))

    def delete(self, ids: npt.ArrayLike, *, if_generation: int | None = None) -> TableChange:
        """Remove users: they are never returned again, and count in no probability. Otherwise as :meth:`append`.

        Raises:
            UsageError: also where an id is not in the table, or no user would be left.
        """
        writer, generation = self._ready(if_generation)
        return self._seen(writer.delete(ids, if_generation=generation))

    def compact(self) -> TableChange:
        """Write the table anew without the rows of deleted users and with full shards, while readers go on.

        Raises:
            BudgetError: as :meth:`append`.
            BundleError: as :meth:`append`.
            UsageError: another writer is at work.
        """
        writer, _ = self._ready(None)
        return self._seen(writer.compact())

    def _ready(self, if_generation: int | None) -> tuple[LivingTable, int | None]:
        from fllm_export.runtime.table_writer import open_writer

        if if_generation is not None:
            if_generation = arguments.integer(if_generation, "if_generation", least=1, most=GENERATION_MAX)
        if self._writer is None:
            self._writer = open_writer(self.directory)
        return self._writer, if_generation

    def _seen(self, change: TableChange) -> TableChange:
        self.reopen()
        return change
