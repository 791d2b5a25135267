"""Users of a bundle whose rows are a head's are learned by folding in, in the dimensions of the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import Bundle, Checkpoint, Runtime, UserTable, build
from fllm_export.checkpoint.user_rule import UserRule
from fllm_export.checkpoint.users import UserRows
from fllm_export.cli.main import main
from fllm_export.manifest import LEARNER
from fllm_export.table.head_learner import HeadLearner
from fllm_export.table.learner import Learner
from fllm_export.table.table import Table
from tests.made_heads import made_head

from .stored_rows import rows_of

pytest.importorskip("torch")

ITEMS, USERS, DIM, RANK, POWER, ACTIVITY = 40, 300, 16, 8, 0.3, 0.2
GENERATOR = np.random.default_rng(8)
CONTRIBUTIONS = GENERATOR.standard_normal((ITEMS, DIM)).astype(np.float32)
SETS = [np.sort(GENERATOR.choice(ITEMS, GENERATOR.integers(1, 9), replace=False)) for _ in range(USERS)]
IDS = GENERATOR.permutation(1000)[:USERS].astype(np.int64)
ITEM_IDS = GENERATOR.permutation(500)[:ITEMS].astype(np.int64)
HEAD = made_head(ITEMS, DIM, RANK, DIM)


def learned(sets: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and biases of users with these items, as training's coordinates have them."""
    learner = HeadLearner.of(Learner.of(ITEM_IDS, CONTRIBUTIONS, POWER, ACTIVITY), HEAD)
    starts = np.cumsum([0, *map(len, sets)])
    items = np.concatenate(sets).astype(np.int32)
    bias = learner.bias(starts)
    assert bias is not None
    return learner.rows(starts, items), bias


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    rows, bias = learned(SETS)
    trained = rows + 0.1 * GENERATOR.standard_normal(rows.shape).astype(np.float32)  # no fold-in gives just these
    users = UserRows.from_array(trained, ids=IDS, bias=bias)
    starts = np.concatenate([[0], np.cumsum([len(items) for items in SETS])]).astype(np.int64)
    items = np.concatenate(SETS).astype(np.int32)
    rule = UserRule(ITEM_IDS, CONTRIBUTIONS, POWER, ACTIVITY, starts, items, HEAD)
    plain = tiny_checkpoint("bert", mapper="kernel", users=USERS, features=("tanh", "normalize"))
    path = tmp_path_factory.mktemp("head") / "checkpoint"
    replace(plain, users=users, rule=rule).save(path)
    return Checkpoint.load(path)


@pytest.fixture(params=["plain", "rotated", "cut"])
def built(request: pytest.FixtureRequest, checkpoint: Checkpoint, item_texts: list[str], tmp_path: Path) -> Path:
    """A bundle without a transform, one whose rows are rotated, and one whose rows have fewer dimensions."""
    options = {"plain": {"quant": "fp32"}, "rotated": {"quant": "int4"}, "cut": {"quant": "fp32", "dim": 10}}
    path = tmp_path / "bundle"
    texts = [f"{text}, part {number}" for number in range(20) for text in item_texts][:320]
    build(
        checkpoint,
        path,
        calibration=texts if "dim" in options[request.param] else item_texts,
        min_recall=0.01,
        k=20,
        threads=1,
        **options[request.param],
    )
    return path


def test_a_rule_of_a_head_is_read_as_it_was_written(checkpoint: Checkpoint) -> None:
    rule = checkpoint.rule
    assert rule is not None
    assert rule.head is not None
    assert (rule.head.strength, rule.head.scale) == (HEAD.strength, HEAD.scale)
    np.testing.assert_array_equal(rule.contributions, CONTRIBUTIONS)
    np.testing.assert_array_equal(rule.head.vectors, HEAD.vectors)
    np.testing.assert_array_equal(rule.head.counts, HEAD.counts)
    other = replace(rule, head=replace(rule.head, strength=0.4))
    assert checkpoint.fingerprint() != replace(checkpoint, rule=other).fingerprint()


def test_a_learned_row_lives_where_the_rows_of_the_table_do(
    built: Path, checkpoint: Checkpoint, item_texts: list[str]
) -> None:
    """The same as appending the row in training's coordinates: transform, rounding and bias are those of the build."""
    bundle = Bundle.load(built)
    assert LEARNER in bundle.manifest.files
    new = [np.array([3, 5, 30]), np.array([17]), np.arange(25)]
    users = np.repeat([2000, 2001, 2002], [len(items) for items in new])
    table = UserTable.open(built / "users", threads=1)
    change = table.learn(users, ITEM_IDS[np.concatenate(new)])
    assert (change.appended, change.interactions) == (3, 29)
    rows, bias = learned(new)
    table.append(rows, [3000, 3001, 3002], bias=bias)
    stored = rows_of(built)
    largest = max(np.abs(row).max() for row, _ in stored.values())
    exact = Table(built / "users").layout.codec == "fp32"
    for number in range(3):
        (row, b), (wanted, wanted_b) = stored[2000 + number], stored[3000 + number]
        assert b == wanted_b
        # Of a code that was rounded either way, the neighbour.
        np.testing.assert_allclose(row, wanted, rtol=0, atol=(1e-5 if exact else 0.3) * largest)
    runtime = Runtime.open(built, threads=1)
    answer = runtime.topk(item_texts[:1], k=len(stored))
    ranked = {user: score for user, score in zip(answer.user_ids[0].tolist(), answer.scores[0], strict=True)}
    z = runtime.encode(item_texts[:1])[0]
    if exact:
        for user in (2000, 2001, 2002):
            row, b = stored[user]
            assert ranked[user] == pytest.approx(float(row @ z) + b, rel=1e-4, abs=1e-4)
    bundle.verify()


def test_withdrawing_and_learning_again_gives_the_same_bytes(built: Path) -> None:
    table, user, own = UserTable.open(built / "users", threads=1), int(IDS[0]), ITEM_IDS[SETS[0]]
    before = rows_of(built)
    other = next(int(item) for item in ITEM_IDS if item not in own)
    table.learn([user], [other])
    first = rows_of(built)
    assert not np.array_equal(first[user][0], before[user][0])
    assert {u: row.tobytes() for u, (row, _) in first.items() if u != user} == {
        u: row.tobytes() for u, (row, _) in before.items() if u != user
    }
    table.learn([user], [other], withdraw=True)
    without = rows_of(built)[user][0]
    table.learn([user] * len(own), own, withdraw=True)
    assert user not in rows_of(built)
    table.learn([user] * len(own), own[::-1])
    np.testing.assert_array_equal(rows_of(built)[user][0], without)
    table.learn([user], [other])
    np.testing.assert_array_equal(rows_of(built)[user][0], first[user][0])


def test_the_command_learns_users_of_a_head(checkpoint: Checkpoint, item_texts: list[str], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    build(checkpoint, bundle, calibration=item_texts, min_recall=0.01, k=20, quant="int8", threads=1)
    (tmp_path / "new.csv").write_text(
        f"user_id,item_id\n5000,{ITEM_IDS[3]}\n5000,{ITEM_IDS[9]}\n{IDS[0]},{ITEM_IDS[3]}\n"
    )
    command = ["users", "learn", str(bundle), str(tmp_path / "new.csv"), "--json"]
    for effect in (3, 0):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        facts = json.loads(result.stdout)
        already = int(3 in SETS[0])
        assert facts["interactions"] == max(0, effect - already * (effect > 0))
    rows = rows_of(bundle)
    direct, _ = learned([np.array([3, 9])])
    np.testing.assert_allclose(rows[5000][0], direct[0], rtol=0, atol=0.02 * np.abs(direct).max())
    result = CliRunner().invoke(main, [*command, "--withdraw"])
    assert result.exit_code == 0, result.output
    assert 5000 not in rows_of(bundle)
    (tmp_path / "new.csv").write_text("user_id,item_id\n5000,10000\n")
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "item id 10000 is not one of the 40 training items" in result.stderr
