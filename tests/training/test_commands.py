"""``fllm-export train`` and ``fllm-export evaluate``."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("peft")
pa = pytest.importorskip("pyarrow")

from fllm_export.cli.main import main  # noqa: E402
from fllm_export.evaluation.baselines import BASELINES  # noqa: E402

from ..drawn import check  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(small_dataset, tiny_bert_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("command") / "checkpoint"
    options = ["--encoder", str(tiny_bert_dir), "--dim", "16", "--epochs", "1", "--threads", "1", "--seed", "3"]
    result = CliRunner().invoke(main, ["train", str(small_dataset), "--out", str(out), *options, "--json"])
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


@pytest.mark.parametrize(
    ("vocabulary", "option", "other"),
    [("closed_form", "--guidance", "bpr"), ("bpr", "--landmarks", "closed_form")],
)
def test_an_option_of_the_other_way_is_refused_with_that_ways_name(small_dataset, tmp_path, vocabulary, option, other):
    arguments = ["train", str(small_dataset), "--out", str(tmp_path / "out"), "--vocabulary", vocabulary, option, "2"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"{option} has no meaning with --vocabulary {vocabulary}" in result.output
    assert f"Leave {option} out, or train with --vocabulary {other}." in result.output


def test_a_limit_of_tokens_without_room_for_a_text_is_refused(small_dataset, tiny_bert_dir, tmp_path):
    arguments = ["train", str(small_dataset), "--out", str(tmp_path / "out"), "--encoder", str(tiny_bert_dir)]
    result = CliRunner().invoke(main, [*arguments, "--epochs", "0", "--max-length", "1"])
    assert result.exit_code == 2
    assert "max_length is 1, and the prompt without a text has" in result.output
    assert "Raise max_length." in result.output


def test_inspect_shows_the_features_of_a_checkpoint_as_its_file_has_them(checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint[0], copy)
    plain = CliRunner().invoke(main, ["inspect", str(copy)]).stdout
    assert re.search("(?m)^features +none$", plain)
    spec = json.loads((copy / "filterllm.json").read_text())
    spec |= {"schema_version": max(2, spec["schema_version"]), "features": [{"kind": "normalize"}]}
    (copy / "filterllm.json").write_text(json.dumps(spec))
    assert re.search("(?m)^features +normalize$", CliRunner().invoke(main, ["inspect", str(copy)]).stdout)
    facts = json.loads(CliRunner().invoke(main, ["inspect", str(copy), "--json"]).stdout)
    assert facts["features"] == [{"kind": "normalize"}]


def test_train_prints_what_it_wrote(checkpoint):
    out, printed = checkpoint
    assert printed["schema"] == "fllm-export/train"
    assert printed["checkpoint"] == str(out)
    written = json.loads((out / "training.json").read_text())
    assert printed["epochs"] == written["epochs"]
    assert written["recipe"]["seed"] == 3
    assert len(written["epochs"]) == 2


def test_a_finished_run_is_not_repeated_and_other_arguments_are_named(
    checkpoint, small_dataset, tiny_bert_dir, tmp_path
):
    out, printed = checkpoint
    command = ["train", str(small_dataset), "--out", str(out), "--encoder", str(tiny_bert_dir), "--epochs", "1"]
    again = CliRunner().invoke(main, [*command, "--dim", "16", "--seed", "3", "--json"])
    assert again.exit_code == 0, again.output
    assert "up to date: nothing was trained" in again.stderr
    assert json.loads(again.stdout) == printed
    other = CliRunner().invoke(main, [*command, "--dim", "24", "--seed", "3"])
    assert other.exit_code == 2
    assert "holds a checkpoint that was trained with dim 16; expected dim 24, or a new directory" in other.stderr
    changed = tmp_path / tiny_bert_dir.name
    shutil.copytree(tiny_bert_dir, changed)
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    command[5] = str(changed)
    other = CliRunner().invoke(main, [*command, "--dim", "16", "--seed", "3"])
    assert other.exit_code == 2
    assert "trained with another content of the encoder's directory" in other.stderr


def test_evaluate_prints_metrics_of_both_questions(checkpoint, small_dataset, tmp_path):
    arguments = ["evaluate", str(checkpoint[0]), str(small_dataset), "-k", "10"]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert (printed["split"], printed["k"], printed["candidate_items"]) == ("cold_test", 10, 32)
    assert printed["users_of_items"]["items"] == 16
    # Chance finds 10 / 160 of an item's users, the topic alone 10 / 40.
    assert printed["users_of_items"]["recall"] > 0.15
    assert set(printed["items_of_users"]) == {"A", "B"}
    report = tmp_path / "report.html"
    table = CliRunner().invoke(main, [*arguments, "--no-baselines", "--report", str(report)])
    assert f"{printed['users_of_items']['recall']:.4f}" in table.stdout
    assert "recall@10" in table.stdout
    assert table.stdout.endswith(f"\nReport: {report}\n")
    assert report.exists()


def test_evaluate_shows_baselines_beside_several_models_and_writes_a_report(checkpoint, small_dataset, tmp_path):
    pytest.importorskip("scipy")
    out, _ = checkpoint
    shutil.copytree(out, tmp_path / "other")
    models, report = [str(out), str(tmp_path / "other")], tmp_path / "report.html"
    arguments = ["evaluate", *models, str(small_dataset), "-k", "10", "--report", str(report), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert [each["name"] for each in printed["beside"]] == ["other"]
    assert [each["name"] for each in printed["baselines"]] == [each.name for each in BASELINES]
    assert printed["likelihood"]["per_pair"] < printed["likelihood"]["uniform"]
    assert printed["baselines"][0]["likelihood"] is None
    assert len(printed["curves"]["recall"]) == 100
    assert printed["curves"]["recall"][9] == pytest.approx(printed["users_of_items"]["recall"])
    assert sum(part["items"] for part in printed["by_group"]["popularity"]) == 16
    text = report.read_text()
    check(text)
    assert f"{printed['users_of_items']['recall']:.4f}" in text


def test_a_bundle_takes_the_text_vectors_of_a_checkpoint_that_is_named(checkpoint, small_dataset, item_texts, tmp_path):
    pytest.importorskip("scipy")
    from fllm_export import Checkpoint, build

    out, _ = checkpoint
    build(Checkpoint.load(out), tmp_path / "bundle", calibration=item_texts, min_recall=0.5, quant="fp16")
    arguments = ["evaluate", str(tmp_path / "bundle"), str(small_dataset), "-k", "10", "--json"]
    alone = CliRunner().invoke(main, arguments)
    assert "left out: the baselines that read texts, which need a checkpoint (--checkpoint)" in alone.stderr
    assert [each["name"] for each in json.loads(alone.stdout)["baselines"]] == ["random users", "most active users"]
    beside = CliRunner().invoke(main, [*arguments, "--checkpoint", str(out)])
    assert len(json.loads(beside.stdout)["baselines"]) == len(BASELINES)
    none = CliRunner().invoke(main, [*arguments, "--no-baselines"])
    assert none.stderr.count("left out") == 0
    assert json.loads(none.stdout)["baselines"] == []
    wrong = CliRunner().invoke(main, [*arguments, "--checkpoint", str(tmp_path / "bundle")])
    assert wrong.exit_code == 2
    assert "is a bundle; expected a checkpoint, which has a base encoder" in wrong.stderr


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
