"""A directory, a file or an output of the wrong kind: the error names what it is and what takes it."""

from __future__ import annotations

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
