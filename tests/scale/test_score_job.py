"""Scoring of many items in parts: the answers, what a killed job leaves, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import BundleError, UsageError, UserTable
from fllm_export.cli.main import main

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

from fllm_export.scale.score_job import ScoreJob, part_name, score_here  # noqa: E402 - after the skip
from fllm_export.scale.scoring import ScoreOptions, ScoreSource  # noqa: E402

GENERATOR = np.random.default_rng(3)
ROWS = GENERATOR.standard_normal((500, 32)).astype(np.float32)
ITEMS = GENERATOR.standard_normal((205, 32)).astype(np.float32)
OPTIONS = ScoreOptions(k=7, part_items=20)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    UserTable.create(tmp_path / "t", ROWS)
    return tmp_path / "t"


def job(place: Path, options: ScoreOptions = OPTIONS, items: Any = ITEMS, name: str = "out.parquet") -> ScoreJob:
    return ScoreJob(ScoreSource(place, threads=1), items, place.parent / name, options)


class Killed(BaseException):
    """What ends a process without a chance to tidy up."""


def killed_after(parts: int) -> Any:
    done = []

    def progress(stage: str, at: int, total: int) -> None:
        done.append(at)
        if stage == "scoring" and len(done) == parts:
            raise Killed

    return progress


@pytest.mark.parametrize("mode", ["topk", "sample"])
def test_the_output_holds_each_item_once_and_in_order(place: Path, mode: Any) -> None:
    options = ScoreOptions(k=7, part_items=20, mode=mode, seed=9)
    assert score_here(job(place, options)) == 205
    found = pq.read_table(place.parent / "out.parquet")
    assert found["item"].to_pylist() == list(range(205))
    table = UserTable.open(place, threads=1)
    expected = table.topk(ITEMS, 7, mode=mode, seed=list(range(9, 9 + 205)))
    np.testing.assert_array_equal(np.array(found["user_ids"].to_pylist()), expected.user_ids)
    np.testing.assert_array_equal(np.array(found["scores"].to_pylist(), np.float32), expected.scores)
    np.testing.assert_allclose(found["logsumexp"].to_numpy(), expected.logsumexp, rtol=1e-6)
    assert not list(place.parent.glob("out.parquet.parts*"))
    assert score_here(job(place, options)) == 0  # it is done already


def test_a_killed_job_goes_on_to_the_same_bytes(place: Path) -> None:
    score_here(job(place, name="whole.parquet"))
    with pytest.raises(Killed):
        score_here(job(place), killed_after(4))
    assert not (place.parent / "out.parquet").exists()
    parts = place.parent / "out.parquet.parts"
    (parts / part_name(1)).write_bytes(b"")  # a part that is damaged is scored again
    assert score_here(job(place)) == 205 - 3 * 20
    assert (place.parent / "out.parquet").read_bytes() == (place.parent / "whole.parquet").read_bytes()


def test_parts_of_another_job_are_neither_used_nor_removed(place: Path) -> None:
    with pytest.raises(Killed):
        score_here(job(place), killed_after(2))
    for other in (ScoreOptions(k=8, part_items=20), ScoreOptions(k=7, part_items=10)):
        with pytest.raises(UsageError, match="differs in options"):
            score_here(job(place, other))
    with pytest.raises(UsageError, match="differs in items"):
        score_here(job(place, items=ITEMS[::-1]))
    UserTable.open(place).delete([0])
    with pytest.raises(UsageError, match="differs in source"):
        score_here(job(place))
    assert len(list((place.parent / "out.parquet.parts").glob("part-*"))) == 2


def test_an_engine_or_encoder_of_the_environment_belongs_to_the_job(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        score_here(job(place), killed_after(2))
    monkeypatch.setenv("FLLM_ENGINE", "numpy")
    with pytest.raises(UsageError, match="differs in engine"):
        score_here(job(place))
    monkeypatch.setattr(ScoreSource, "takes_texts", True)
    monkeypatch.setenv("FLLM_ENCODER", "cpu-fp32")
    assert ScoreSource(place, threads=3).settled() == ScoreSource(place, "numpy", "cpu-fp32", 3)
    monkeypatch.delenv("FLLM_ENCODER")
    assert ScoreSource(place, "tensorrt").settled().encoder == "tensorrt"
    assert ScoreSource(place, encoder="cuda").settled().encoder == "cuda"


def test_a_table_that_changes_under_a_job_is_found(place: Path) -> None:
    begun = job(place)
    UserTable.open(place).delete([0])
    with pytest.raises(BundleError, match="generation 2"):
        score_here(begun)


def test_one_job_at_a_time(place: Path) -> None:
    first, second = job(place), job(place)
    with first.begun() as missing:
        assert len(missing) == 11
        with pytest.raises(UsageError, match="being written"):
            score_here(second)


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        (["a text"], OPTIONS, "texts"),
        (ITEMS[:0], OPTIONS, "no item"),
        (ITEMS, ScoreOptions(k=501), "k is 501"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is_written(
    place: Path, items: Any, options: ScoreOptions, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        job(place, options, items)
    assert [path.name for path in place.parent.iterdir()] == ["t"]


def test_a_file_that_is_something_else_is_left_alone(place: Path) -> None:
    (place.parent / "out.parquet").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not the output"):
        score_here(job(place))
    assert (place.parent / "out.parquet").read_bytes() == b"mine"


def test_the_command(place: Path) -> None:
    np.save(place.parent / "items.npy", ITEMS)
    out = place.parent / "cli.parquet"
    arguments = ["score", place.parent / "items.npy", "--source", place, "--out", out, "-k", "7", "--json"]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["items"], found["scored_now"], found["generation"]) == (205, 205, 1)
    assert pq.read_table(out).num_rows == 205
    refused = CliRunner().invoke(main, [*map(str, arguments), "--workers", "2"])
    assert refused.exit_code == 2


def test_an_encoder_for_a_table_is_refused_if_it_was_typed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(place.parent / "items.npy", ITEMS[:3])
    given = ["score", place.parent / "items.npy", "--source", place, "--out", place.parent / "out.parquet", "-k", 2]
    words = list(map(str, given))
    refused = CliRunner().invoke(main, [*words, "--encoder", "cpu"])
    assert (refused.exit_code, "an encoder was given" in refused.stderr) == (2, True)
    monkeypatch.setenv("FLLM_ENCODER", "cpu")
    assert CliRunner().invoke(main, words).exit_code == 0
