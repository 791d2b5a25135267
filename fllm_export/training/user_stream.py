"""User rows of the closed form, written as they come: into the files of a checkpoint or into a user table.

Memory holds the contributions of the items (mapped from a file where they are large) and a few blocks of rows, whatever
the number of users. An interrupted run goes on after its last finished file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.checkpoint.user_files import BIAS, IDS, ROWS, USER_FILES, rows_per_file, user_file
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish, publish_text, sha256_file
from fllm_export.pair_files import Ids
from fllm_export.progress import Progress, silent
from fllm_export.safetensors_layout import TensorFacts, lay_out
from fllm_export.strict_json import parse
from fllm_export.system_errors import check_place
from fllm_export.table.layout import TableLayout
from fllm_export.table.options import TableChoices, TableOptions
from fllm_export.table.writer import TableWriter
from fllm_export.training.closed_form import ClosedForm
from fllm_export.training.interactions import Interactions
from fllm_export.training.user_sums import FloatArray, UserItems, damping

_LEDGER = ".users.jsonl"
_MAPPED_BYTES = 1 << 30
_BLOCK_BYTES = 64 << 20
_SKETCH_ITEMS = 1024


@dataclass(frozen=True)
class _Finished:
    """A file that is complete."""

    name: str
    sha256: str


class UserStream:
    """The rows of all users of some interactions.

    Args:
        form: fitted on the vectors of ``interactions.items`` and on ``interactions.counts``.
        interactions: whose users get rows.
        workspace: a directory for contributions that are larger than 1 GiB; the caller removes it.
        bias: added to the scores, float32 [users] in ascending order of the user ids, or None.

    Raises:
        UsageError: the form is of other items, or there is not one bias per user.
    """

    def __init__(
        self, form: ClosedForm, interactions: Interactions, workspace: Path, bias: FloatArray | None = None
    ) -> None:
        if not np.array_equal(form.counts, interactions.counts):
            raise UsageError(
                "the closed form does not have the counts of the interactions",
                expected="a form that was fitted on interactions.items and interactions.counts",
            )
        if bias is not None and bias.shape != (interactions.users,):
            raise UsageError(f"bias has the shape {list(bias.shape)}", expected=f"[{interactions.users}]")
        self._form, self._interactions, self._workspace, self.bias = form, interactions, workspace, bias

    @property
    def users(self) -> int:
        """Number of users."""
        return int(self._interactions.users)

    @property
    def dim(self) -> int:
        """Dimension of a row."""
        return self._form.dim

    @property
    def sketch_items(self) -> npt.NDArray[np.float64]:
        """Item vectors by which a table's sketch is chosen, float64 [n, d]."""
        count = len(self._form.counts)
        places = np.linspace(0, count - 1, min(_SKETCH_ITEMS, count)).astype(np.int64)
        return self._form.item_vectors(self._form.ridge.items[places])

    @cached_property
    def contributions(self) -> FloatArray:
        """C_i of every training item, float32 [T, d], in memory or mapped into it."""
        shape = len(self._form.counts), self._form.dim
        if 4 * shape[0] * shape[1] <= _MAPPED_BYTES:
            return self._form.contributions
        self._workspace.mkdir(parents=True, exist_ok=True)
        path = self._workspace / "contributions.npy"
        mapped: FloatArray = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        self._form.write_contributions(mapped)
        return mapped

    @cached_property
    def key(self) -> str:
        """A SHA-256 of everything that decides the rows."""
        digest = hashlib.sha256(self._interactions.key.encode())
        digest.update(repr(self._form.setting.user_power).encode())
        digest.update(np.ascontiguousarray(self.contributions).data)
        digest.update(b"" if self.bias is None else self.bias.tobytes())
        return digest.hexdigest()

    def chunks(self, skip: int = 0) -> Iterator[tuple[Ids, FloatArray]]:
        """Yield user ids int64 [n], ascending, and their rows float32 [n, d], after the first ``skip`` users."""
        step = max(1, _BLOCK_BYTES // (4 * self._form.dim))
        for block in self._interactions.blocks(skip):
            for first in range(0, len(block.ids), step):
                last = min(first + step, len(block.ids))
                yield block.ids[first:last], self._rows(block.users.part(first, last))

    def _rows(self, users: UserItems) -> FloatArray:
        rows = users.sums(self.contributions)
        rows *= damping(users.sizes, self._form.setting.user_power)[:, None]
        return rows

    def _biases(self, first: int, count: int) -> FloatArray | None:
        return None if self.bias is None else self.bias[first : first + count].astype(np.float32)

    def write_table(
        self, directory: str | Path, progress: Progress = silent, **options: Unpack[TableChoices]
    ) -> TableLayout:
        """Write a user table; the same call goes on with the shards that an interrupted one has finished.

        Args:
            directory: new, empty, or left by an interrupted call.
            progress: counts users.
            **options: ``quant``, ``shard_bytes``, ``sketch`` and ``cluster``, as :class:`TableOptions` describes them.

        Raises:
            UsageError: the directory holds something else or cannot be written, or an option is invalid.
        """
        chosen = TableOptions(**options)
        key = hashlib.sha256(f"{self.key} {json.dumps(asdict(chosen), sort_keys=True)}".encode()).hexdigest()
        writer = TableWriter(
            arguments.path(directory, "directory"),
            chosen,
            dim=self.dim,
            bias=self.bias is not None,
            items=self.sketch_items,
            resume_key=key,
        )
        done = writer.rows_done
        for ids, rows in self.chunks(done):
            writer.add(rows, ids, self._biases(done, len(ids)))
            done += len(ids)
            progress("user table", done, self._interactions.users)
        return writer.finish()

    def write_shards(self, directory: str | Path, progress: Progress = silent) -> None:
        """Write the files ``users-*.safetensors`` of a checkpoint, float32, 1 GiB each at most.

        The same call goes on with the files that an interrupted one has finished; their SHA-256 is checked.

        Args:
            directory: a checkpoint to be; other files in it are left alone.
            progress: counts users.

        Raises:
            UsageError: the directory has user files of another origin, or cannot be written.
            BundleError: the record of an interrupted call is damaged.
        """
        directory = arguments.path(directory, "directory")
        check_place(directory, "directory")
        directory.mkdir(parents=True, exist_ok=True)
        users, step = self._interactions.users, rows_per_file(self._form.dim)
        total = -(-users // step)
        finished = self._take_up(directory)
        chunks = self.chunks(len(finished) * step)
        held: list[tuple[Ids, FloatArray]] = []
        for number in range(len(finished), total):
            count = min(step, users - number * step)
            path = directory / user_file(number, total)
            held = self._write_file(path, number * step, count, held, chunks)
            finished.append(_Finished(path.name, sha256_file(path)))
            self._record(directory, finished)
            progress("users", number * step + count, users)
        (directory / _LEDGER).unlink()

    def _write_file(
        self,
        path: Path,
        first: int,
        count: int,
        held: list[tuple[Ids, FloatArray]],
        chunks: Iterator[tuple[Ids, FloatArray]],
    ) -> list[tuple[Ids, FloatArray]]:
        """Write ``count`` rows from number ``first``; return those of the last chunk that belong to the next file."""
        facts = {IDS: TensorFacts("I64", [count], 8 * count)}
        bias = self._biases(first, count)
        if bias is not None:
            facts[BIAS] = TensorFacts("F32", [count], 4 * count)
        facts[ROWS] = TensorFacts("F32", [count, self._form.dim], 4 * count * self._form.dim)
        header = lay_out(facts).header
        written: list[Ids] = []
        missing, rest = count, held
        with publish(path) as file:
            file.write(header)
            # The ids stand before the rows and are known after them.
            file.seek(8 * count, 1)
            file.write(b"" if bias is None else bias.tobytes())
            while missing:
                ids, rows = rest.pop() if rest else next(chunks)
                taken = min(missing, len(ids))
                written.append(ids[:taken])
                file.write(rows[:taken].data)
                missing -= taken
                if taken < len(ids):
                    rest.append((ids[taken:], rows[taken:]))
            file.seek(len(header))
            file.write(np.concatenate(written).tobytes())
        return rest

    def _record(self, directory: Path, finished: list[_Finished]) -> None:
        lines = [{"key": self.key, "dim": self._form.dim}, *map(asdict, finished)]
        publish_text(directory / _LEDGER, "".join(json.dumps(line) + "\n" for line in lines))

    def _take_up(self, directory: Path) -> list[_Finished]:
        """Return the files that an interrupted call has finished; remove its others."""
        ledger = directory / _LEDGER
        present = sorted(directory.glob(USER_FILES))
        if not ledger.exists():
            if present:
                raise UsageError(
                    f"{present[0]} exists",
                    expected="a directory without user files",
                    fix="Choose another directory, or delete the old files first",
                )
            self._record(directory, [])
            return []
        try:
            head, *lines = [parse(line) for line in ledger.read_bytes().splitlines()]
            found = [_Finished(**line) for line in lines] if head["key"] == self.key else []
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{ledger} is damaged ({error})", fix=f"Delete it and {USER_FILES} beside it") from error
        kept: list[_Finished] = []
        for file in found:
            path = directory / file.name
            if not path.exists() or sha256_file(path) != file.sha256:
                break
            kept.append(file)
        names = {file.name for file in kept}
        for path in [*present, *directory.glob("." + USER_FILES + ".*")]:
            if path.name not in names:
                path.unlink()
        self._record(directory, kept)
        return kept
