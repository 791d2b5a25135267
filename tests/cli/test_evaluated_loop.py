"""``fllm-export evaluate --recommender``."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("scipy")

from fllm_export import UserTable
from fllm_export.cli.main import main
from fllm_export.coldstart import Vectors

from ..coldstart.small_loop import USERS, save_model, taught_dataset
from ..drawn import check


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def world(tiny_checkpoint, tmp_path_factory):
    """The directories of a checkpoint and of the data set of its own taste."""
    folder = tmp_path_factory.mktemp("world")
    save_model(tiny_checkpoint("bert", users=USERS, dim=16, lora=False), folder / "model")
    data = taught_dataset(folder / "model")
    (folder / "data").mkdir()
    items = {"item_id": data.item_ids, "text": list(data.texts)}
    parquet.write_table(pa.table(items), folder / "data" / "items.parquet")
    rows = [
        (int(data.user_ids[user]), int(data.item_ids[item]), split)
        for split, pairs in data.splits.items()
        for user, item in sorted(set(zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)))
    ]
    columns = dict(zip(("user_id", "item_id", "split"), map(list, zip(*rows, strict=True)), strict=True))
    parquet.write_table(pa.table(columns), folder / "data" / "interactions.parquet")
    return folder / "model", folder / "data"


def test_the_loop_is_evaluated_reported_and_continued(world, tmp_path):
    out, report = tmp_path / "out", tmp_path / "report.html"
    command = ["evaluate", *world, "--recommender", "mf", "--seeds", 2, "--k", 5, "--out", out]
    result = run(*command, "--json", "--report", report)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["schema"] == "fllm-export/evaluate"
    assert (printed["recommender"], printed["protocol"], printed["seeds"]) == ("mf", "b", 2)
    arms = {arm["name"]: arm for arm in printed["arms"]}
    assert arms["model"]["cold"]["ndcg"]["mean"] > 1.5 * arms["no pseudo pairs"]["cold"]["ndcg"]["mean"]
    for file in printed["recommender_files"]:
        assert len(Vectors.load(file).users) == USERS
    text = report.read_text()
    check(text)
    assert f"{arms['model']['overall']['recall']['mean']:.4f}" in text
    again = run(*command)
    assert again.exit_code == 0, again.output
    assert f"{arms['model']['overall']['recall']['mean']:.4f} ± " in again.stdout
    assert "paired t-test" in again.stdout
    assert "training" not in again.stderr, "a finished evaluation trains nothing"
    one = run(*command, "--seeds", 1)
    assert "One seed: no deviation and no test." in one.stdout


def test_a_saved_recommender_takes_new_items(world, tmp_path):
    out = tmp_path / "out"
    command = ["evaluate", *world, "--recommender", "lightgcn", "--seeds", 1, "--k", 5, "--out", out, "--json"]
    recommender = json.loads(run(*command).stdout)["recommender_files"][0]
    rows = np.random.default_rng(0).standard_normal((USERS, 4), np.float32)
    UserTable.create(tmp_path / "users", rows, quant="int8")
    new = tmp_path / "new.jsonl"
    new.write_text('{"item_id": 9999, "vector": [1, 2, 0, 1]}\n')
    options = ["--recommender", recommender, "--out", tmp_path / "onboarded", "--json"]
    result = run("onboard", tmp_path / "users", new, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["onboarded"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--protocol", "a"], "--protocol has no effect without --recommender"),
        (["--out", "x"], "--out has no effect without --recommender"),
        (["--recommender", "mf", "--split", "cold_val"], "--split has no effect with --recommender"),
        (["--recommender", "mf", "--no-baselines"], "--baselines has no effect with --recommender"),
    ],
)
def test_options_without_effect_are_refused(world, options, words):
    result = run("evaluate", *world, *options)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
