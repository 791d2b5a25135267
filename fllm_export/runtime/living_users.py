"""The part of a user table that changes it (docs/guides/living_tables.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy.typing as npt

from fllm_export import arguments
from fllm_export.table.layout import GENERATION_MAX, TableLayout

if TYPE_CHECKING:
    from fllm_export.table.head_learner import HeadLearner
    from fllm_export.table.learner import Learner
    from fllm_export.table.living import LearnedChange, LivingTable, TableChange


class LivingUsers(ABC):
    """Changes the table in a directory, and opens it again after each change.

    A call that has returned is durable, and this handle answers from the new generation. Other handles and processes
    answer from theirs until they reopen. There is one writer at a time, in whatever process; a second one is refused.
    """

    directory: Path
    _writer: LivingTable | None = None
    _learner: Learner | HeadLearner | None = None
    _identity: str = ""

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

    def learn(
        self,
        user_ids: npt.ArrayLike,
        item_ids: npt.ArrayLike,
        *,
        withdraw: bool = False,
        if_generation: int | None = None,
    ) -> LearnedChange:
        """Learn interactions without training, or withdraw them: for the table of a bundle that training made.

        A user's row is made of all items of the user, those before this call included. In closed form it is exactly
        the row that training makes; of a head it is the row that makes these items most likely.
        New users are added. A user whose last interaction is withdrawn leaves the table. An interaction counts once,
        so a call can be repeated.

        Args:
            user_ids: integers [n], the user of each interaction.
            item_ids: integers [n], its item, one that the model was trained on.
            withdraw: withdraw the interactions: the rows are then as if they had never been.
            if_generation: refuse unless this is the table's generation.

        Returns:
            the new generation, and how many interactions had an effect.

        Raises:
            BudgetError: as :meth:`append`.
            BundleError: as :meth:`append`, or the learner is damaged.
            UsageError: the bundle has no learner, an item was not trained on, a user's row was not learned but given,
                no user would be left, or as :meth:`append`.
        """
        from fllm_export.table.learning import Pairs

        writer, generation = self._ready(if_generation)
        users = arguments.ids(user_ids, "user_ids")
        items = arguments.ids(item_ids, "item_ids", len(users))
        withdraw = arguments.flag(withdraw, "withdraw")
        rule = self._rule()
        pairs = Pairs.of(users, rule.positions(items))
        change = writer.learn(pairs, rule, withdraw=withdraw, if_generation=generation)
        self.reopen()
        return change

    def compact(self) -> TableChange:
        """Rewrite the table without the rows of deleted users and with full shards, while readers go on.

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
        identity = TableLayout.load(self.directory).identity
        if self._writer is None or self._identity != identity:
            # Another bundle in the same place makes its rows in another way.
            self._writer, self._learner, self._identity = open_writer(self.directory), None, identity
        return self._writer, if_generation

    def _rule(self) -> Learner | HeadLearner:
        from fllm_export.runtime.table_writer import open_learner

        if self._learner is None:
            self._learner = open_learner(self.directory)
        return self._learner

    def _seen(self, change: TableChange) -> TableChange:
        self.reopen()
        return change
