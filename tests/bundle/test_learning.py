"""Users of a bundle in closed form are learned as the build would have made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import Bundle, BundleError, Checkpoint, UsageError, UserTable, build
from fllm_export.checkpoint.user_rule import RULE_FILE, UserRule
from fllm_export.checkpoint.users import UserRows
from fllm_export.cli.main import main
from fllm_export.manifest import LEARNER
from fllm_export.table.table import Table

from .stored_rows import rows_of

pytest.importorskip("torch")

ITEMS, USERS, DIM, POWER, ACTIVITY = 40, 400, 16, 0.3, 0.2
GENERATOR = np.random.default_rng(8)
CONTRIBUTIONS = GENERATOR.standard_normal((ITEMS, DIM)).astype(np.float32)
SETS = [np.sort(GENERATOR.choice(ITEMS, GENERATOR.integers(1, 9), replace=False)) for _ in range(USERS)]
IDS = GENERATOR.permutation(1000)[:USERS].astype(np.int64)
ITEM_IDS = GENERATOR.permutation(500)[:ITEMS].astype(np.int64)


def trained_row(items: np.ndarray) -> np.ndarray:
    """The row of a user with these items, as training makes it in float32."""
    return CONTRIBUTIONS[items].sum(0) * np.float32(len(items) ** -POWER)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    rows = np.stack([trained_row(items) for items in SETS])
    sizes = np.array([len(items) for items in SETS])
    users = UserRows.from_array(rows, ids=IDS, bias=(ACTIVITY * np.log(sizes)).astype(np.float32))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rule = UserRule(ITEM_IDS, CONTRIBUTIONS, POWER, ACTIVITY, starts, np.concatenate(SETS).astype(np.int32))
    plain = tiny_checkpoint("bert", mapper="kernel", users=USERS, features=("tanh", "normalize"))
    path = tmp_path_factory.mktemp("rule") / "checkpoint"
    replace(plain, users=users, rule=rule).save(path)
    return Checkpoint.load(path)


@pytest.fixture(scope="module", params=["fp32", "int4"])
def built(
    request: pytest.FixtureRequest,
    checkpoint: Checkpoint,
    item_texts: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle without a transform, or one whose rows are rotated."""
    path = tmp_path_factory.mktemp("learn") / "bundle"
    build(checkpoint, path, calibration=item_texts, min_recall=0.1, k=20, quant=request.param, threads=1)
    return path


def test_a_rule_is_read_as_it_was_written(checkpoint: Checkpoint) -> None:
    rule = checkpoint.rule
    assert rule is not None
    assert (rule.user_power, rule.activity) == (POWER, ACTIVITY)
    np.testing.assert_array_equal(rule.contributions, CONTRIBUTIONS)
    np.testing.assert_array_equal(rule.items, np.concatenate(SETS))
    assert checkpoint.fingerprint() != replace(checkpoint, rule=None).fingerprint()


def test_a_rule_of_other_rows_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    replace(checkpoint, base=checkpoint.base).save(tmp_path / "c")
    rule = checkpoint.rule
    assert rule is not None
    wrong = {
        "an activity": replace(rule, activity=None),
        "shape": replace(rule, contributions=CONTRIBUTIONS[:, :-1]),
        "fit together": replace(rule, items=np.array(rule.items) + np.int32(20)),
        "out of range": replace(rule, user_power=2.0),
    }
    for message, other in wrong.items():
        other.write(tmp_path / "c" / RULE_FILE)
        with pytest.raises(BundleError, match=message.replace("an activity", "no activity")):
            Checkpoint.load(tmp_path / "c")


def test_a_user_who_is_learned_again_has_the_row_of_the_build(built: Path) -> None:
    bundle, table = Bundle.load(built), UserTable.open(built / "users", threads=1)
    assert LEARNER in bundle.manifest.files
    bundle.verify()
    before, some = rows_of(built), range(0, USERS, 7)
    users = np.repeat(IDS[some], [len(SETS[n]) for n in some])
    items = ITEM_IDS[np.concatenate([SETS[n] for n in some])]
    change = table.learn(users, items, withdraw=True)
    assert (change.deleted, change.interactions) == (len(some), len(items))
    assert set(rows_of(built)) == set(IDS.tolist()) - set(IDS[some].tolist())
    change = table.learn(users, items)
    assert (change.appended, change.users) == (len(some), USERS)
    after = rows_of(built)
    found, wanted = (np.stack([rows[user][0] for user in IDS.tolist()]) for rows in (after, before))
    if Table(built / "users").layout.codec == "fp32":
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    else:  # two roundings of nearly the same number may end in codes that are neighbours
        assert np.isclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max()).mean() > 0.998
        assert np.abs(found - wanted).max() < 0.3 * np.abs(wanted).max()
    assert {user: bias for user, (_, bias) in after.items()} == {user: bias for user, (_, bias) in before.items()}
    bundle.verify()


def test_the_command_learns_and_withdraws(built: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    user = int(IDS[1])
    more = [n for n in range(ITEMS) if n not in SETS[1]][:3]
    path, before = tmp_path / "new.parquet", rows_of(built)
    columns = {"user_id": [user] * 3 + [5000], "item_id": ITEM_IDS[[*more, 4]].tolist()}
    parquet.write_table(pa.table(columns), path)
    for _ in range(2):
        result = CliRunner().invoke(main, ["users", "learn", str(built), str(path), "--json"])
        assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["interactions"], facts["without_effect"], facts["users"]) == (0, 4, USERS + 1)
    row = rows_of(built)[user][0]
    if Table(built / "users").layout.codec == "fp32":
        np.testing.assert_allclose(row, trained_row(np.sort([*SETS[1], *more])), rtol=0, atol=1e-6 * np.abs(row).max())
    assert not np.array_equal(row, before[user][0])
    result = CliRunner().invoke(main, ["users", "learn", str(built), str(path), "--withdraw"])
    assert "4 interactions withdrawn, 0 without effect" in result.stdout
    assert set(rows_of(built)) == set(before)
    columns["item_id"][0] = 10_000
    parquet.write_table(pa.table(columns), path)
    result = CliRunner().invoke(main, ["users", "learn", str(built), str(path)])
    assert result.exit_code == 2
    assert "item id 10000 is not one of the 40 training items" in result.stderr


def test_a_bundle_that_cannot_learn_says_why(kernel_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no learner\.safetensors, so its users cannot be learned"):
        UserTable.open(kernel_bundle.path / "users").learn([1], [1])
    table = UserTable.create(tmp_path / "t", np.ones((2, 8)))
    with pytest.raises(UsageError, match="a user table without a bundle"):
        table.learn([1], [1])
