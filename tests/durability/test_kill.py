"""A writer in Python or in C killed at random moments: every row that it acknowledged is there, and none by half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.table.living import LivingTable
from fllm_export.table.table import Table

from .killed_writer import killed, leftovers

DIM = 16

# Row v of user u is made of u and v, so that a reader can tell which version it sees.
WRITER = """
import random, sys
import numpy as np
from pathlib import Path
from fllm_export.table.living import LivingTable
sys.path.insert(0, sys.argv[5])
from durability.test_kill import row, versions_of
from table.native_writer import NativeTable
directory, seed, version, language = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
table, native, choice = LivingTable(Path(directory)), NativeTable(Path(directory)), random.Random(seed)
known = set(versions_of(directory))
print("ready", flush=True)
while True:
    kind = choice.choice(["append", "append", "update", "update", "delete", "compact"])
    if kind == "append":
        ids = [version * 100 + n for n in range(choice.randint(1, 60))]
    else:
        ids = choice.sample(sorted(known), min(len(known) - 1, choice.randint(1, 40)))
    if kind == "delete" and len(known) < 80:
        kind = "append"
        ids = [version * 100 + n for n in range(60)]
    print("begin", kind, version, *ids, flush=True)
    if kind in ("append", "update"):
        rows = np.stack([row(user, version) for user in ids])
        if language == "c":
            getattr(native, kind)(rows, ids)
        else:
            getattr(table, kind)([(rows, ids, None)])
        known |= set(ids)
    elif kind == "delete":
        (native if language == "c" else table).delete(ids)
        known -= set(ids)
    else:
        table.compact()
    print("end", flush=True)
    version += 1
"""


def row(user: int, version: int) -> np.ndarray:
    """The row of a user in a version, whose codes of int8 are these numbers."""
    numbers = np.zeros(DIM, np.float32)
    numbers[0] = 127
    for place, digit in enumerate(f"{user:07d}{version:07d}"):
        numbers[1 + place] = int(digit)
    return numbers


def versions_of(directory: str | Path) -> dict[int, int]:
    """By user the version of the row that the table holds; rows and ids that do not belong together raise."""
    found = {}
    for ids, rows in Table(Path(directory)).decoded():
        for user, numbers in zip(ids.tolist(), rows, strict=True):
            digits = "".join(str(round(float(number))) for number in numbers[1:15])
            assert int(digits[:7]) == user, f"user {user} has the row of {digits}"
            found[user] = int(digits[7:])
    return found


def after(model: dict[int, int], line: str) -> dict[int, int]:
    """The users after a change that was announced."""
    _, kind, version, *ids = line.split()
    named = [int(user) for user in ids]
    if kind == "delete":
        return {user: known for user, known in model.items() if user not in set(named)}
    return model | dict.fromkeys(named, int(version)) if kind != "compact" else model


def one_life(
    directory: Path, seed: int, version: int, language: str, model: dict[int, int]
) -> tuple[dict[int, int], int]:
    """Let a writer live for a random time, kill it, and return the users that must be there, and the next version."""
    ended, under_way = killed(WRITER, seed, directory, seed, version, language)
    for line in ended:
        model = after(model, line)
    Table(directory).verify()
    found = versions_of(directory)
    assert found in ([model] if under_way is None else [model, after(model, under_way)])
    return found, version + len(ended) + (under_way is not None)


def lives(tmp_path: Path, count: int, first_seed: int, language: str) -> None:
    directory = tmp_path / "t"
    model = dict.fromkeys(range(100), 0)
    UserTable.create(directory, np.stack([row(user, 0) for user in model]), list(model), sketch="no", cluster="yes")
    version = 1
    for seed in range(first_seed, first_seed + count):
        model, version = one_life(directory, seed, version, language, model)
    assert version > count  # the writers did get to work
    # What killed writers left is removed by the next change, and what killed compactions left by the next compaction.
    LivingTable(directory).append([(row(9_999_999, 1)[None], [9_999_999], None)])
    LivingTable(directory).compact()
    assert not leftovers(directory)


@pytest.mark.parametrize("language", ["python", "c"])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(language: str, tmp_path: Path) -> None:
    lives(tmp_path, 20, 0, language)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["python", "c"])
def test_a_writer_killed_three_hundred_times(language: str, tmp_path: Path) -> None:
    lives(tmp_path, 300, 1000, language)
