"""``fllm-export train`` and ``fllm-export evaluate``."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("peft")
pa = pytest.importorskip("pyarrow")

from fllm_export.cli.main import main  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(small_dataset, tiny_bert_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("command") / "checkpoint"
    options = ["--encoder", str(tiny_bert_dir), "--dim", "16", "--epochs", "1", "--threads", "1", "--seed", "3"]
    result = CliRunner().invoke(main, ["train", str(small_dataset), "--out", str(out), *options, "--json"])
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_train_prints_what_it_wrote(checkpoint):
    out, printed = checkpoint
    assert printed["schema"] == "fllm-export/train"
    assert printed["checkpoint"] == str(out)
    written = json.loads((out / "training.json").read_text())
    assert printed["epochs"] == written["epochs"]
    assert written["recipe"]["seed"] == 3
    assert len(written["epochs"]) == 2


def test_evaluate_prints_metrics_of_both_questions(checkpoint, small_dataset):
    arguments = ["evaluate", str(checkpoint[0]), str(small_dataset), "-k", "10"]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert (printed["split"], printed["k"], printed["candidate_items"]) == ("cold_test", 10, 32)
    assert printed["users_of_items"]["items"] == 16
    # Chance finds 10 / 160 of an item's users, the topic alone 10 / 40.
    assert printed["users_of_items"]["recall"] > 0.15
    assert set(printed["items_of_users"]) == {"A", "B"}
    table = CliRunner().invoke(main, arguments)
    assert f"{printed['users_of_items']['recall']:.4f}" in table.stdout
    assert "recall@10" in table.stdout


def test_users_without_a_training_pair_are_left_out_and_counted(checkpoint, small_dataset, tmp_path):
    from pyarrow import parquet

    out, printed = checkpoint
    assert printed["users_left_out"] == 0
    shutil.copytree(small_dataset, tmp_path / "data")
    pairs = parquet.read_table(small_dataset / "interactions.parquet").to_pydict()
    cold = pairs["item_id"][pairs["split"].index("cold_test")]
    for name, values in (("user_id", [7, 8]), ("item_id", [cold, cold]), ("split", ["cold_test"] * 2)):
        pairs[name] += values
    parquet.write_table(pa.table(pairs), tmp_path / "data" / "interactions.parquet")
    result = CliRunner().invoke(main, ["evaluate", str(out), str(tmp_path / "data"), "-k", "10", "--json"])
    assert result.exit_code == 0, result.output
    assert "left out: 2 users without a pair in train, and their pairs in other splits" in result.stderr
    assert json.loads(result.stdout)["users_left_out"] == 2
    strict = CliRunner().invoke(main, ["train", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--strict"])
    assert strict.exit_code == 4
    assert "user_id 7 has no row of the split train" in strict.stderr


def test_errors_have_their_exit_codes(checkpoint, small_dataset, tmp_path):
    taken = CliRunner().invoke(main, ["train", str(small_dataset), "--out", str(checkpoint[0])])
    assert taken.exit_code == 2
    assert "holds a checkpoint" in taken.stderr
    missing = CliRunner().invoke(main, ["train", str(tmp_path), "--out", str(tmp_path / "out")])
    assert missing.exit_code == 4
    assert "items.parquet is missing" in missing.stderr
    neither = CliRunner().invoke(main, ["evaluate", str(tmp_path), str(small_dataset)])
    assert neither.exit_code == 2
