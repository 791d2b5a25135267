from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fllm_export import Bundle, Runtime
from fllm_export.cli.main import main
from fllm_export.coldstart import Onboarder, OnboardOptions, Vectors, open_index, read_onboarded


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def recommender(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    users = Runtime.open(tiny_bundle.path).users
    ids = np.sort(np.concatenate([ids for ids, _ in users.decoded()]))
    generator = np.random.default_rng(0)
    path = tmp_path / "recommender.safetensors"
    rows, items = generator.standard_normal((len(ids), 6)), generator.standard_normal((20, 6))
    Vectors(ids, rows, np.arange(20), items).save(path)
    return path


def test_onboard_writes_pushes_and_does_nothing_twice(
    tiny_bundle: Bundle, recommender: Path, item_texts: list[str], tmp_path: Path
) -> None:
    texts = item_texts[:6]
    items, out, index = tmp_path / "new.jsonl", tmp_path / "out", tmp_path / "index.safetensors"
    items.write_text("".join(json.dumps({"item_id": 100 + n, "text": text}) + "\n" for n, text in enumerate(texts)))
    command = ["onboard", tiny_bundle.path, items, "--recommender", recommender, "--out", out, "--index", index]
    command += ["-k", 5, "--batch", 4, "--json"]
    first = json.loads(run(*command).stdout)
    assert first["schema"] == "fllm-export/onboard"
    assert (first["read"], first["onboarded"], first["batches"]) == (6, 6, 2)
    assert set(first["stages_ms"]) == {"encode", "select", "update"}
    assert first["unknown_users"] == 0
    second = json.loads(run(*command).stdout)
    assert (second["read"], second["onboarded"]) == (0, 0)
    known = Vectors.load(recommender)
    expected = Onboarder(Runtime.open(tiny_bundle.path), known, OnboardOptions(k=5)).onboard(texts)
    ids, vectors = read_onboarded(out)
    assert ids.tolist() == list(range(100, 106))
    np.testing.assert_array_equal(vectors, expected.vectors)
    assert len(open_index(index, known.item_ids, known.items)) == 26
    # With another option the directory is refused; with a new record the run goes on.
    refused = run(*command[:-1], "--half-at", 3)
    assert refused.exit_code == 2
    assert "another half_at" in refused.stderr
    with items.open("a") as file:
        file.write(json.dumps({"item_id": 100, "text": texts[0], "users": [int(known.user_ids[0])]}) + "\n{}\n")
    stopped = run(*command)
    assert stopped.exit_code == 4
    assert json.loads(stopped.stdout)["error"]["kind"] == "BundleError"
    assert not np.array_equal(read_onboarded(out)[1][-1], vectors[0])


def test_onboard_says_how_many_users_the_recommender_does_not_know(
    tiny_bundle: Bundle, recommender: Path, tmp_path: Path
) -> None:
    known, items = Vectors.load(recommender), tmp_path / "new.jsonl"
    Vectors(known.user_ids[3:], known.users[3:], known.item_ids, known.items).save(recommender)
    items.write_text('{"item_id": 1, "text": "a"}\n')
    done = run("onboard", tiny_bundle.path, items, "--recommender", recommender, "--out", tmp_path / "o", "--json")
    assert json.loads(done.stdout)["unknown_users"] == 3
    assert "3 users of the user table are not in" in done.stderr


def test_onboard_refuses_what_it_cannot_do(
    tiny_bundle: Bundle, recommender: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = tmp_path / "new.jsonl"
    items.write_text('{"item_id": 1, "text": "a"}\n')
    common = ["onboard", tiny_bundle.path, items, "--recommender", recommender, "--out", tmp_path / "out"]
    assert run(*common, "--idle-seconds", 1).exit_code == 2
    assert run(*common, "-k", 10_000).exit_code == 2
    assert run("onboard", tmp_path, *common[2:]).exit_code == 4
    users = tiny_bundle.path / "users"
    refused = run("onboard", users, *common[2:], "--encoder", "cpu")
    assert (refused.exit_code, "an encoder was given" in refused.stderr) == (2, True)
    monkeypatch.setenv("FLLM_ENCODER", "cpu")  # for all that is opened: no reason to refuse a table
    assert "no `vector`" in run("onboard", users, *common[2:]).stderr


def test_a_file_that_is_not_parquet_has_the_exit_code_of_damage(
    tiny_bundle: Bundle, recommender: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    items = tmp_path / "new.parquet"
    items.write_bytes(b"PAR1 and no more")
    done = run("onboard", tiny_bundle.path, items, "--recommender", recommender, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 4
    found = json.loads(done.stdout)["error"]
    assert found["kind"] == "BundleError"
    assert "new.parquet is not a Parquet file" in found["message"]
