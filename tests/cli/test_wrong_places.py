"""A directory, a file or an output of the wrong kind: the error names what it is and what takes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fllm_export import Bundle, BundleError, Checkpoint, Runtime, UserTable
from fllm_export.checkpoint.checkpoint import Checkpoint as LoadedCheckpoint
from fllm_export.cli.main import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wrong") / "checkpoint"
    tiny_checkpoint("bert", users=400).save(place)
    return place


@pytest.mark.parametrize(
    "verb",
    [("query", "a film"), ("verify",), ("serve", "--port", 0), ("bench", "--file", "items.txt"), ("users", "list")],
)
def test_a_checkpoint_is_to_be_built_first(checkpoint: Path, verb: tuple[object, ...]) -> None:
    name, *options = verb
    words = [name, options.pop(0)] if name == "users" else [name]
    refused = run(*words, checkpoint, *options)
    assert refused.exit_code == 4
    assert f"{checkpoint} is a checkpoint; expected a" in refused.stderr
    assert "Run `fllm-export build` first" in refused.stderr
    assert refused.stdout == ""


def test_a_checkpoint_is_not_opened_in_python(checkpoint: Path) -> None:
    for opens in (Runtime.open, UserTable.open, Bundle.load):
        with pytest.raises(BundleError, match=r"is a checkpoint; expected a .*Run `fllm-export build` first"):
            opens(checkpoint)


def test_a_built_bundle_is_not_built_again(tiny_bundle: Bundle, tmp_path: Path) -> None:
    for place, kind in ((tiny_bundle.path, "a bundle"), (tiny_bundle.path / "users", "a user table")):
        refused = run("build", place, "-o", tmp_path / "out", "--calibration", tmp_path / "items.txt")
        assert refused.exit_code == 4
        assert f"{place} is {kind}; expected a checkpoint. `fllm-export query`, `serve`" in refused.stderr
        with pytest.raises(BundleError, match=f"is {kind}; expected a checkpoint"):
            Checkpoint.load(place)
    with pytest.raises(BundleError, match="is a user table; expected a bundle"):
        Bundle.load(tiny_bundle.path / "users")
    with pytest.raises(BundleError, match="is a bundle; expected a user table"):
        UserTable.open(tiny_bundle.path)


def test_a_directory_of_no_kind_is_told_what_to_hold(tmp_path: Path) -> None:
    refused = run("query", tmp_path, "a film")
    assert refused.exit_code == 4
    assert f"{tmp_path} is not a bundle or a user table; expected manifest.json or table.json in it" in refused.stderr


def test_an_occupied_output_is_refused_before_the_checkpoint_is_read(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> str:
        raise AssertionError("the checkpoint was read")

    monkeypatch.setattr(LoadedCheckpoint, "fingerprint", read)
    monkeypatch.setattr(LoadedCheckpoint, "load", read)
    (tmp_path / "thesis.txt").write_text("years of work")
    refused = run("build", checkpoint, "-o", tmp_path, "--calibration", tmp_path / "thesis.txt")
    assert refused.exit_code == 2
    assert f"{tmp_path} exists and is not a bundle" in refused.stderr


def test_ids_that_are_no_integers_are_shown_as_they_are_written(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((3, 4), np.float32))
    np.save(tmp_path / "ids.npy", np.arange(3.0))
    refused = run("users", "create", tmp_path / "t", tmp_path / "rows.npy", "--ids", tmp_path / "ids.npy")
    assert refused.exit_code == 2
    assert "ids.npy is an array of float64, such as 0.0; expected integers [3], one per row" in refused.stderr


def test_item_vectors_of_another_dimension_are_named_by_their_file(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", np.ones((3, 4), np.float32))
    np.save(tmp_path / "items.npy", np.ones((2, 5), np.float32))
    refused = run("query", tmp_path / "t", "--file", tmp_path / "items.npy", "-k", 1)
    assert refused.exit_code == 2
    assert f"{tmp_path}/items.npy holds item vectors of dimension 5; expected 4, as the user table" in refused.stderr


@pytest.mark.parametrize("verb", ["list", "compact", "append", "learn"])
def test_a_directory_without_a_table_is_named_as_it_was_given(verb: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((2, 4), np.float32))
    np.save(tmp_path / "ids.npy", np.arange(2))
    (tmp_path / "pairs.csv").write_text("user_id,item_id\n1,2\n")
    (tmp_path / "t").mkdir()
    more = {"append": [tmp_path / "rows.npy", "--ids", tmp_path / "ids.npy"], "learn": [tmp_path / "pairs.csv"]}
    refused = run("users", verb, tmp_path / "t", *more.get(verb, []))
    assert refused.exit_code == 4
    assert f"{tmp_path / 't'} is not a bundle or a user table; expected manifest.json or table.json" in refused.stderr


def test_a_table_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    rows = np.ones((70_000, 4), np.float32)
    rows[-1, 0] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    refused = run("users", "create", tmp_path / "t", tmp_path / "rows.npy")
    assert refused.exit_code == 4
    assert "row 69999" in refused.stderr
    assert not (tmp_path / "t").exists()


def test_a_single_vector_is_told_how_to_be_saved(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", np.ones((3, 4), np.float32))
    np.save(tmp_path / "item.npy", np.ones(4, np.float32))
    refused = run("query", tmp_path / "t", "--file", tmp_path / "item.npy")
    assert refused.exit_code == 4
    assert "with the shape [4]" in refused.stderr
    assert "Save a single vector as array[None], of the shape [1, d]." in refused.stderr


def test_a_recall_is_told_to_be_that_of_the_build(tiny_bundle: Bundle, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.path, place)
    remark = "yes: the recall is that of the table as it was built"
    assert "changed_since_build  no" in run("inspect", place).stdout
    user = int(next(ids for ids, _ in UserTable.open(place / "users").decoded())[0])
    assert run("users", "delete", place, user).exit_code == 0
    assert f"changed_since_build  {remark}" in run("inspect", place).stdout
