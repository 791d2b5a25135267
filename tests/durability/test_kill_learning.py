"""A learner killed at random moments: rows and histories agree, nothing is lost, and repeating it counts once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.table.histories import Histories
from fllm_export.table.learner import Learner
from fllm_export.table.learning import Pairs
from fllm_export.table.living import LivingTable
from fllm_export.table.table import Table

from .killed_writer import killed, leftovers

ITEMS, USERS, STRANGER = 12, 60, 10**6

# A row has a 1 for each item of its user, so that a reader sees what it was made of.
LEARNER = Learner.of(np.arange(ITEMS), np.eye(ITEMS), 0.0, None)

WRITER = """
import random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from durability.test_kill_learning import ITEMS, USERS, LivingTable, do, sets_of
table, choice = LivingTable(Path(sys.argv[1])), random.Random(int(sys.argv[2]))
print("ready", flush=True)
while True:
    kind = choice.choice(["learn", "learn", "learn", "withdraw", "withdraw", "delete", "compact"])
    pairs = [(choice.randrange(USERS), choice.randrange(ITEMS)) for _ in range(choice.randint(1, 80))]
    if kind == "delete":
        known = sorted(sets_of(table.directory))
        pairs = [(user, 0) for user in choice.sample(known, min(len(known), 5))]
        kind = "delete" if pairs else "compact"
    print("begin", kind, *(number for pair in pairs for number in pair), flush=True)
    do(table, kind, pairs)
    print("end", flush=True)
"""

Sets = dict[int, frozenset[int]]


def do(table: LivingTable, kind: str, pairs: list[tuple[int, int]]) -> None:
    """Make one change."""
    if kind == "compact":
        table.compact()
    elif kind == "delete":
        table.delete(sorted({user for user, _ in pairs}))
    else:
        users, items = (np.array(column) for column in zip(*pairs, strict=True))
        table.learn(Pairs.of(users, items.astype(np.int32)), LEARNER, withdraw=kind == "withdraw")


def sets_of(directory: Path) -> Sets:
    """By user the items of the history, which must be those that the row shows."""
    table = Table(directory)
    histories, found = Histories.load(directory, table.layout.histories), {}
    for ids, rows in table.decoded():
        for user, row in zip(ids.tolist(), rows, strict=True):
            known = histories.of(np.array([user]))
            if user != STRANGER:
                assert np.flatnonzero(row > 0.5).tolist() == known.items.tolist(), f"user {user}"
                found[user] = frozenset(known.items.tolist())
    return found


def after(model: Sets, line: str) -> Sets:
    """The users after a change that was announced."""
    _, kind, *numbers = line.split()
    pairs = list(zip(map(int, numbers[::2]), map(int, numbers[1::2]), strict=True))
    if kind == "compact":
        return model
    if kind == "delete":
        gone = {user for user, _ in pairs}
        return {user: items for user, items in model.items() if user not in gone}
    changed = dict(model)
    for user, item in pairs:
        known = changed.get(user, frozenset())
        changed[user] = known - {item} if kind == "withdraw" else known | {item}
    return {user: items for user, items in changed.items() if items}


def one_life(directory: Path, seed: int, model: Sets) -> tuple[Sets, int]:
    """Let a writer live for a random time, kill it, repeat what was cut off; return the users and its lines."""
    ended, under_way = killed(WRITER, seed, directory, seed)
    for line in ended:
        model = after(model, line)
    Table(directory).verify()
    found = sets_of(directory)
    assert found in ([model] if under_way is None else [model, after(model, under_way)])
    if under_way is not None and under_way.split()[1] in ("learn", "withdraw"):
        _, kind, *numbers = under_way.split()
        do(LivingTable(directory), kind, list(zip(map(int, numbers[::2]), map(int, numbers[1::2]), strict=True)))
        found = sets_of(directory)
        assert found == after(model, under_way)
    return found, 2 * len(ended) + (under_way is not None)


def lives(tmp_path: Path, count: int, first_seed: int) -> None:
    directory = tmp_path / "t"
    UserTable.create(directory, np.ones((1, ITEMS)), [STRANGER], sketch="no", cluster="yes")
    model: Sets = {}
    changes = 0
    for seed in range(first_seed, first_seed + count):
        model, lines = one_life(directory, seed, model)
        changes += lines
    assert changes > count  # the writers did get to work
    # What killed writers left is removed by the next change, and a compaction need not be one.
    do(LivingTable(directory), "learn", [(USERS, 0)])
    model = model | {USERS: frozenset({0})}
    LivingTable(directory).compact()
    assert not leftovers(directory)
    assert sets_of(directory) == model


def test_a_killed_learner_counts_every_interaction_once(tmp_path: Path) -> None:
    lives(tmp_path, 6, 0)


@pytest.mark.slow
def test_a_learner_killed_three_hundred_times(tmp_path: Path) -> None:
    lives(tmp_path, 300, 1000)
