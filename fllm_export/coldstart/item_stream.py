"""New items from a file into vectors, batch by batch, until the file ends or nothing comes any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fllm_export.coldstart.item_index import ItemIndex
from fllm_export.coldstart.new_items import Batch, ItemSource
from fllm_export.coldstart.onboard_journal import OnboardJournal
from fllm_export.coldstart.onboard_parts import read_onboarded
from fllm_export.coldstart.onboarding import Onboarded, Onboarder
from fllm_export.errors import UsageError
from fllm_export.files import publish_json
from fllm_export.progress import Progress, silent
from fllm_export.strict_json import read_object

MARK_ENDING = ".recommender.json"
_POLL_S = 0.1


@dataclass(frozen=True)
class StreamEnd:
    """When a stream is over.

    Attributes:
        follow: whether the file may still grow.
        idle_seconds: with ``follow``, seconds without a new record after which the stream ends; None waits for ever.
        max_items: records that are read at most; None for all.
    """

    follow: bool = False
    idle_seconds: float | None = None
    max_items: int | None = None


@dataclass
class Counts:
    """What a run did.

    Attributes:
        read: records.
        onboarded: rows written: items that are new, or that changed.
        unchanged: records of items that were known with the same content.
        batches: that were committed.
        stages_ms: wall time by stage, over the whole run.
        restarted: whether the file was another than before, so that it was read from its beginning.
        unknown_users: users of the user table whom the recommender does not know, and who were never chosen.
    """

    read: int = 0
    onboarded: int = 0
    unchanged: int = 0
    batches: int = 0
    stages_ms: dict[str, float] = field(default_factory=dict)
    restarted: bool = False
    unknown_users: int = 0

    def add(self, batch: Batch, rows: Onboarded | None) -> None:
        """Count a batch."""
        done = 0 if rows is None else len(rows)
        self.read += len(batch.items)
        self.onboarded += done
        self.unchanged += len(batch.items) - done
        self.batches += 1
        for stage, milliseconds in ({} if rows is None else rows.timings_ms).items():
            self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + milliseconds


class IndexFile:
    """An index and its file, which is written when the stream pauses and when it ends.

    A file beside it says which recommender its vectors are of. An index without one is taken to be of this recommender.

    Args:
        index: open; all rows that are onboarded already are pushed into it, so that a crash loses nothing.
        path: its file.
        folder: output directory.
        recommender: SHA-256 of the recommender's file.

    Raises:
        UsageError: the index has vectors of another recommender.
        BundleError: the file beside it is damaged.
    """

    def __init__(self, index: ItemIndex, path: Path, folder: Path, recommender: str) -> None:
        self.index = index
        self._path, self._recommender = path, recommender
        self._mark = path.with_name(path.name + MARK_ENDING)
        if path.exists() and self._mark.exists() and read_object(self._mark).get("recommender") != recommender:
            raise UsageError(
                f"{path} holds vectors of another recommender",
                expected="items of the recommender that is given, as inner products of two spaces mean nothing",
                fix="Choose another --index, or delete it: it is made again from the recommender and --out",
            )
        ids, vectors = read_onboarded(folder)
        if len(ids):
            index.push(ids, vectors)
        self._changed = len(ids) > 0 or not path.exists()

    def push(self, rows: Onboarded) -> None:
        """Push new vectors."""
        self.index.push(rows.item_ids, rows.vectors)
        self._changed = True

    def save(self) -> None:
        """Write the file if the index has changed."""
        if self._changed:
            publish_json(self._mark, {"recommender": self._recommender})
            self.index.save(self._path)
            self._changed = False


class ItemStream:
    """Reads records, makes vectors, commits them and pushes them.

    Args:
        onboarder: makes vectors.
        source: the records.
        journal: entered; commits.
        index: that vectors are pushed into, or None.
        batch: records per batch at most, at least 1.
    """

    def __init__(
        self,
        onboarder: Onboarder,
        source: ItemSource,
        journal: OnboardJournal,
        index: IndexFile | None = None,
        batch: int = 64,
    ) -> None:
        self._onboarder = onboarder
        self._source = source
        self._journal = journal
        self._index = index
        self._batch = batch

    def run(
        self, end: StreamEnd, progress: Progress = silent, tell: Callable[[str], None] = lambda remark: None
    ) -> Counts:
        """Run until the stream is over.

        Args:
            end: when that is.
            progress: counts what is read.
            tell: is told, in words, that the stream waits for a file that cannot be read, and that it is read again.

        Raises:
            BundleError: a record is invalid; what stands before it is committed.
            FllmError: as the onboarder raises it.
        """
        position = self._journal.position_in(self._source)
        restarted = position == 0 and len(self._journal.entries) > 0
        counts = Counts(restarted=restarted, unknown_users=self._onboarder.unknown_users)
        last_news, unreadable = time.monotonic(), False
        try:
            while end.max_items is None or counts.read < end.max_items:
                most = self._batch if end.max_items is None else min(self._batch, end.max_items - counts.read)
                batch = self._source.read(position, most, final=not end.follow)
                if (batch.unreadable is not None) != unreadable:
                    unreadable = not unreadable
                    tell(f"waiting for a whole file: {batch.unreadable}" if unreadable else "the file is read again")
                if batch.items:
                    counts.add(batch, self._done(batch))
                    position, last_news = batch.end, time.monotonic()
                    progress(f"new items ({self._source.unit})", position, batch.size)
                elif not end.follow or _expired(end.idle_seconds, last_news):
                    break
                else:
                    self._save()
                    time.sleep(_POLL_S)
        finally:
            self._save()
        return counts

    def _done(self, batch: Batch) -> Onboarded | None:
        fresh = self._journal.fresh(batch.items)
        rows = None
        if fresh:
            items = [item for item, _ in fresh]
            contents: Any = [item.content for item in items]
            rows = self._onboarder.onboard(contents, [item.item_id for item in items], [item.users for item in items])
        self._journal.commit(batch, fresh, rows)
        if rows is not None and self._index is not None:
            self._index.push(rows)
        return rows

    def _save(self) -> None:
        if self._index is not None:
            self._index.save()


def _expired(idle_seconds: float | None, since: float) -> bool:
    return idle_seconds is not None and time.monotonic() - since >= idle_seconds
