"""Arguments of another type than the docs' examples: taken where the meaning is plain, else named in a UsageError."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import Bundle, Checkpoint, UsageError, build

torch = pytest.importorskip("torch")

from fllm_export.evaluation import Dataset, evaluate, open_ranker  # noqa: E402
from fllm_export.training import ClosedFormRecipe, SoftmaxRecipe, train  # noqa: E402

from .tampering import TEMPLATE  # noqa: E402


def save_weights(path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 32, generator=generator)
    torch.save({"mapper": {}, "user_embeddings": {"weight": rows}}, path / "custom_weights.pt")
    return path / "custom_weights.pt"


@pytest.fixture
def official(tiny_llama_dir: Path, tmp_path: Path) -> Callable[..., Checkpoint]:
    weights = save_weights(tmp_path)

    def make(**changes: Any) -> Checkpoint:
        given = {"base_model": tiny_llama_dir, "adapter": None, "custom_weights": weights, "template": TEMPLATE}
        return Checkpoint.from_filterllm(**{**given, "mapper": "identity", **changes})

    return make


@pytest.mark.parametrize(
    "ids",
    [[5, 3, 9], np.array([5, 3, 9], np.uint16), torch.tensor([5, 3, 9]), np.array([5, 3, 9], object), range(3, 10, 3)],
)
def test_ids_of_a_checkpoint_are_integers_of_any_kind(official: Callable[..., Checkpoint], ids: Any) -> None:
    found = official(ids=ids, max_length=np.int64(16)).users.ids
    assert found is not None
    assert found.tolist() == [int(value) for value in ids]


DATES = [datetime.date(2020, 1, day) for day in (1, 2, 3)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": [1.9, 2.0, 3.0]}, "ids is an array of float64"),
        ({"ids": np.array([1, 2, 3], np.float32)}, "ids is an array of float32"),
        ({"ids": torch.tensor([1.0, 2.0, 3.0])}, "ids is an array of float32"),
        ({"ids": ["a", "b", "c"]}, "ids is an array of <U1"),
        ({"ids": ["1", "2", "3"]}, "ids is an array of <U1"),
        ({"ids": [True, False, True]}, "ids is an array of bool"),
        ({"ids": DATES}, r"ids\[0\] is datetime\.date"),
        ({"ids": np.array(DATES, "datetime64[D]")}, "ids is an array of datetime64"),
        ({"ids": [1, 2]}, r"ids has the shape \[2\]; expected integers \[3\]"),
        ({"ids": [1, 2, 1]}, "ids holds 1 twice"),
        ({"ids": [1, 2, -1]}, "ids runs from -1 to 2"),
        ({"max_length": 12.5}, r"max_length is 12\.5"),
        ({"max_length": "12"}, "max_length is '12'"),
        ({"max_length": True}, "max_length is True"),
        ({"max_length": 0}, "max_length is 0"),
        ({"template": None}, "template is None"),
        ({"template": "no place"}, "the template 'no place' holds {text} 0 times"),
        ({"mapper": "cubic"}, "mapper is 'cubic'"),
        ({"padding_side": 1}, "padding_side is 1"),
        ({"base_model": 5}, "base_model is 5"),
        ({"custom_weights": None}, "custom_weights is None"),
        ({"adapter": b"x"}, "adapter is b'x'"),
    ],
)
def test_an_import_names_the_argument(official: Callable[..., Checkpoint], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        official(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": [1.5, 2.5]}, "ids is an array of float64"),
        ({"ids": [1, 2, 3]}, r"ids has the shape \[3\]; expected integers \[2\]"),
        ({"first_user_row": 2.0}, r"first_user_row is 2\.0"),
        ({"first_user_row": -1}, "first_user_row is -1"),
        ({"users": "2"}, "users is '2'"),
        ({"model_dir": ""}, "model_dir is ''"),
    ],
)
def test_an_extended_vocabulary_names_the_argument(tiny_llama_dir: Path, changes: dict[str, Any], words: str) -> None:
    given = {"model_dir": tiny_llama_dir, "first_user_row": np.int32(5), "users": np.int64(2), "template": TEMPLATE}
    assert Checkpoint.from_extended_vocabulary(**given, ids=np.array([7, 4])).users.ids.tolist() == [7, 4]
    with pytest.raises(UsageError, match=words):
        Checkpoint.from_extended_vocabulary(**{**given, **changes})


def test_a_build_of_numpy_values(small: Checkpoint, item_texts: list[str], tmp_path: Path) -> None:
    options = {
        "k": np.int64(10),
        "min_recall": np.float32(0.5),
        "threads": np.int32(1),
        "shard_bytes": np.int64(1 << 20),
    }
    texts = np.array(item_texts, object)
    bundle = build(small, tmp_path / "b", calibration=texts, **options)
    assert bundle.parity().k == 10
    written = bundle.path / "manifest.json"
    before = written.stat().st_mtime_ns
    build(str(small.base.parent), str(tmp_path / "b"), calibration=item_texts, **options)
    assert written.stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def small(tiny_checkpoint: Any) -> Checkpoint:
    return tiny_checkpoint("bert", users=50)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": 5}, "checkpoint is 5"),
        ({"output": None}, "output is None"),
        ({"calibration": "no such file"}, "ends in ''"),
        ({"calibration": "none.txt"}, "none.txt is missing"),
        ({"calibration": None}, "calibration is a NoneType"),
        ({"calibration": ["a", 5]}, "calibration: text 1 is 5"),
        ({"calibration": ["a", "\ud800"]}, r"calibration: text 1 holds U\+D800"),
        ({"calibration": np.array([["a"]])}, "calibration is a ndarray of 2 dimensions"),
        ({"k": 2.0}, r"k is 2\.0"),
        ({"min_recall": "1"}, "min_recall is '1'"),
        ({"min_recall": np.nan}, "min_recall is nan"),
        ({"exporter": 1}, "exporter is 1"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": True}, "threads is True"),
        ({"quant": 8}, "no codec 8"),
        ({"shard_bytes": 1.5}, r"shard_bytes is 1\.5"),
    ],
)
def test_a_build_names_the_argument(small: Checkpoint, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    given = {"checkpoint": small, "output": tmp_path / "b", "calibration": ["a film"], "k": 5}
    with pytest.raises(UsageError, match=words):
        build(**{**given, **changes})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Checkpoint.load(None), "directory is None"),
        (lambda: Bundle.load(5), "directory is 5"),
        (lambda: Dataset.load(b"x"), "directory is b'x'"),
        (lambda: open_ranker("a\0b"), "directory is 'a.x00b'"),
        (lambda: train(5, "out"), "dataset is 5"),
        (lambda: train("data", None), "out is None"),
        (lambda: train("data", "out", {"dim": 5}), "recipe is a dict"),
        (lambda: evaluate("model", 5), "dataset is 5"),
        (lambda: evaluate("model", "data", k=2.5), r"k is 2\.5"),
        (lambda: evaluate("model", "data", split=3), "split is 3"),
        (lambda: SoftmaxRecipe(dim=16.0), r"dim is 16\.0"),
        (lambda: SoftmaxRecipe(seed=1 << 70), "seed is 1180591620717411303424"),
        (lambda: SoftmaxRecipe(guidance="10"), "guidance is '10'"),
        (lambda: SoftmaxRecipe(max_steps=1.5), r"max_steps is 1\.5"),
        (lambda: ClosedFormRecipe(landmarks=0), "landmarks is 0"),
        (lambda: ClosedFormRecipe(dim="16"), "dim is '16'"),
        (lambda: ClosedFormRecipe(lora_rank=True), "lora_rank is True"),
    ],
)
def test_every_other_call_names_the_argument(call: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()


def test_a_recipe_of_numpy_values_is_the_same_recipe() -> None:
    assert (
        SoftmaxRecipe(dim=np.int64(16), guidance=np.float64(2.5), seed=np.uint8(1)).to_json()
        == SoftmaxRecipe(dim=16, guidance=2.5, seed=1).to_json()
    )
