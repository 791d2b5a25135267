"""A scoring job on disk: its parts, and the one file that they become.

Beside the output ``topk.parquet`` the directory ``topk.parquet.parts`` holds ``job.json``, which tells what the job is,
and a file per part that is done. A part is published by a rename after its bytes are synced, and says in its metadata
which job and which items it is of. So there is no moment at which an item is lost or counted twice.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fllm_export.errors import BundleError, UsageError
from fllm_export.files import json_text, locked, publish, publish_json
from fllm_export.progress import Progress, silent
from fllm_export.runtime.topk import TopK
from fllm_export.scale.scoring import (
    ItemPart,
    Items,
    ScoreOptions,
    Scorer,
    ScoreSource,
    check_items,
    item_parts,
    job_facts,
)
from fllm_export.strict_json import read_object

JOB_NAME = "job.json"
_FORMAT_VERSION = 1
_LOCK_NAME = ".job.lock"
_KEY, _FIRST = b"fllm.job", b"fllm.first_item"
_PART = re.compile(r"part-(\d{8})\.parquet")

SCHEMA = pa.schema(
    [
        ("item", pa.int64()),
        ("user_ids", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float32())),
        ("log_probs", pa.list_(pa.float32())),
        ("logsumexp", pa.float32()),
    ]
)
"""Of the output: the number of the item in its file, from 0, and its users, best first."""


@dataclass(frozen=True)
class PartWriter:
    """Scores parts and publishes them: what every machine of a job does.

    Attributes:
        source: what scores.
        options: what is wanted.
        generation: of the table.
        folder: where parts go; all machines reach it by the same path.
        key: of the job.
    """

    source: ScoreSource
    options: ScoreOptions
    generation: int
    folder: Path
    key: str

    def opened(self) -> Callable[[ItemPart], int]:
        """Return what scores and publishes a part, and returns its number of items."""
        scorer = Scorer(self.source, self.options, self.generation)

        def work(part: ItemPart) -> int:
            self.publish(part, scorer.score(part))
            return len(part.items)

        return work

    def publish(self, part: ItemPart, answers: list[TopK]) -> None:
        """Write the answers to a part. A part that is written again has the same rows."""
        numbers = np.arange(part.first, part.first + len(part.items))
        columns = [
            pa.array(numbers),
            *(_lists([getattr(answer, name) for answer in answers]) for name in ("user_ids", "scores", "log_probs")),
            pa.array(np.concatenate([answer.logsumexp for answer in answers])),
        ]
        metadata = {_KEY: self.key.encode(), _FIRST: str(part.first).encode()}
        table = pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata(metadata))
        with publish(self.folder / part_name(part.number)) as file:
            pq.write_table(table, file)


class ScoreJob:
    """The items of a job, which parts are done, and its output.

    Args:
        source: what scores.
        items: texts for a bundle, vectors [n, d] for a table.
        out: the Parquet file to be.
        options: what is wanted.

    Raises:
        BundleError: the source is damaged.
        UsageError: the items are of the wrong kind, or at ``out`` is something else, or parts of another job.
    """

    def __init__(self, source: ScoreSource, items: Items, out: Path, options: ScoreOptions) -> None:
        source = source.settled()
        check_items(source, items)
        facts = job_facts(source, items, options)
        if options.k > facts["source"]["users"]:
            raise UsageError(
                f"k is {options.k}", expected=f"at most {facts['source']['users']}, the users of the table"
            )
        self.out = out
        self.facts = facts
        self.parts = item_parts(items, options.part_items)
        folder = out.with_name(out.name + ".parts")
        key = hashlib.sha256(json_text(facts).encode()).hexdigest()
        self.writer = PartWriter(source, options, facts["source"]["generation"], folder, key)
        self._items = len(items)

    @property
    def finished(self) -> bool:
        """Whether the output of this very job is there.

        Raises:
            UsageError: something else is.
        """
        if not self.out.exists():
            return False
        if self.out.is_file() and _metadata(self.out).get(_KEY) == self.writer.key.encode():
            return True
        raise UsageError(
            f"{self.out} exists and is not the output of this job",
            expected="a new file",
            fix="Choose another --out, or delete it",
        )

    @contextmanager
    def begun(self) -> Iterator[list[ItemPart]]:
        """Hold the job, alone, and give the parts that are missing.

        Raises:
            UsageError: the job is running elsewhere, or the parts that are there are of another job.
        """
        folder = self.writer.folder
        folder.mkdir(parents=True, exist_ok=True)
        busy = UsageError(f"{folder} is being written", expected="one job at a time", fix="Wait until it has ended")
        with locked(folder / _LOCK_NAME, busy):
            self._check_folder()
            yield [part for part in self.parts if not self._is_done(part)]

    def finish(self, progress: Progress = silent) -> None:
        """Join the parts to one file, publish it, and remove them.

        Raises:
            BundleError: a part is missing or does not hold its items.
        """
        metadata = {_KEY: self.writer.key.encode()}
        done = 0
        with publish(self.out) as file, pq.ParquetWriter(file, SCHEMA.with_metadata(metadata)) as writer:
            for part in self.parts:
                path = self.writer.folder / part_name(part.number)
                if not self._is_done(part):
                    raise BundleError(f"{path} is missing", expected="every part", fix="Run the command again")
                rows = pq.read_table(path, partitioning=None)
                if not np.array_equal(rows["item"].to_numpy(), np.arange(done, done + len(part.items))):
                    raise BundleError(f"{path} does not hold its items", fix="Delete it, and run the command again")
                writer.write_table(rows.replace_schema_metadata(metadata))
                done += len(part.items)
                progress("joining parts", done, self._items)
        shutil.rmtree(self.writer.folder)

    def _check_folder(self) -> None:
        path = self.writer.folder / JOB_NAME
        if not path.exists():
            publish_json(path, {"format_version": _FORMAT_VERSION, "key": self.writer.key, **self.facts})
            return
        found = read_object(path, fix=f"Delete {self.writer.folder}")
        if found.get("key") != self.writer.key:
            differing = [name for name, value in self.facts.items() if found.get(name) != value] or ["its key"]
            raise UsageError(
                f"{self.writer.folder} holds parts of another job, which differs in {', '.join(differing)}",
                expected="parts of this job",
                fix="Choose another --out, or delete that directory to begin again",
            )

    def _is_done(self, part: ItemPart) -> bool:
        path = self.writer.folder / part_name(part.number)
        if not path.exists():
            return False
        found = _metadata(path)
        return (
            found.get(_KEY) == self.writer.key.encode()
            and found.get(_FIRST) == str(part.first).encode()
            and pq.read_metadata(path).num_rows == len(part.items)
        )


def score_here(job: ScoreJob, progress: Progress = silent) -> int:
    """Run a job, or what is missing of it, in this process; return the number of items that were scored now.

    Raises:
        FllmError: as the job, the source and the items raise it.
    """
    if job.finished:
        return 0
    with job.begun() as missing:
        scored, total = 0, sum(len(part.items) for part in missing)
        work = job.writer.opened() if missing else None
        for part in missing:
            assert work is not None
            scored += work(part)
            progress("scoring", scored, total)
        job.finish(progress)
    return scored


def part_name(number: int) -> str:
    """Return the name of a part's file."""
    return f"part-{number:08d}.parquet"


def _lists(parts: list[Any]) -> Any:
    """Return [B, k] arrays as one Arrow column of lists."""
    joined = np.concatenate(parts)
    offsets = np.arange(0, joined.size + 1, joined.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(joined.ravel()))


def _metadata(path: Path) -> dict[bytes, bytes]:
    """Return the metadata of a Parquet file; none where it is not one."""
    try:
        return dict(pq.read_schema(path).metadata or {})
    except (pa.ArrowInvalid, OSError):
        return {}
