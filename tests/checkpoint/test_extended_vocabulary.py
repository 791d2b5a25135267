from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.errors import BundleError

TEMPLATE = "{text} ->"
WORDS, USERS = 400, 24


@pytest.fixture
def model_dir(tiny_llama_dir: Path, tmp_path: Path) -> Path:
    """A causal LM whose head has 24 rows more than the language has words."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama_dir, folder)
    tensors = load_file(folder / "model.safetensors")
    extra = np.random.default_rng(0).standard_normal((USERS, 32)).astype(np.float32)
    tensors["lm_head.weight"] = np.concatenate([tensors["lm_head.weight"], extra])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_users_are_the_last_rows(model_dir: Path) -> None:
    checkpoint = Checkpoint.from_extended_vocabulary(model_dir, first_user_row=WORDS, template=TEMPLATE)
    head = load_file(model_dir / "model.safetensors")["lm_head.weight"]
    assert checkpoint.spec.users == USERS
    assert checkpoint.spec.dim == 32
    np.testing.assert_array_equal(next(checkpoint.users.chunks()), head[WORDS:])
    some = Checkpoint.from_extended_vocabulary(model_dir, first_user_row=WORDS + 2, users=5, template=TEMPLATE)
    np.testing.assert_array_equal(next(some.users.chunks()), head[WORDS + 2 : WORDS + 7])


def test_round_trip_stores_no_second_copy_of_the_rows(model_dir: Path, tmp_path: Path) -> None:
    ids = np.arange(USERS)[::-1] * 10
    first = Checkpoint.from_extended_vocabulary(
        model_dir, first_user_row=WORDS, template=TEMPLATE, ids=ids.tolist(), max_length=99, padding_side="right"
    )
    first.save(tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["base", "filterllm.json", "ids.safetensors"]
    assert json.loads((tmp_path / "out" / "filterllm.json").read_text())["first_user_row"] == WORDS
    second = Checkpoint.load(tmp_path / "out")
    assert (second.spec.max_length, second.spec.padding_side) == (99, "right")
    np.testing.assert_array_equal(second.users.ids, ids)
    np.testing.assert_array_equal(next(second.users.chunks()), next(first.users.chunks()))
    assert second.fingerprint() == first.fingerprint()


def test_tied_head_is_the_input_embedding(model_dir: Path) -> None:
    tensors = load_file(model_dir / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors.pop("lm_head.weight")
    save_file(tensors, model_dir / "model.safetensors", metadata={"format": "pt"})
    checkpoint = Checkpoint.from_extended_vocabulary(model_dir, first_user_row=WORDS, template=TEMPLATE)
    np.testing.assert_array_equal(next(checkpoint.users.chunks()), tensors["model.embed_tokens.weight"][WORDS:])


@pytest.mark.parametrize(
    ("first", "users", "words"),
    [
        (WORDS + USERS, None, ["424 rows", "more than 424", "at least one user from row 424"]),
        (WORDS, USERS + 1, ["424 rows", "more than 424", "25 users from row 400"]),
    ],
)
def test_too_few_rows(first: int, users: int | None, words: list[str], model_dir: Path) -> None:
    with pytest.raises(BundleError) as caught:
        Checkpoint.from_extended_vocabulary(model_dir, first_user_row=first, users=users, template=TEMPLATE)
    for word in ["lm_head.weight", "model.safetensors", *words]:
        assert word in str(caught.value)


def test_a_model_without_head(tiny_bert_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bert_dir, tmp_path / "bert")
    file = tmp_path / "bert" / "model.safetensors"
    tensors = {name: value for name, value in load_file(file).items() if "word_embeddings" not in name}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BundleError, match=r"has no output embedding; expected .*lm_head\.weight"):
        Checkpoint.from_extended_vocabulary(tmp_path / "bert", first_user_row=1, template=TEMPLATE)
