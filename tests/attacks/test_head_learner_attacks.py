"""Hostile learners of a softmax head, and hostile histories beside them: each is refused by a message, none is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BundleError, UserTable
from fllm_export.head_rule import CLOSED_TENSOR, HEAD_TENSORS
from fllm_export.safetensors_layout import PADDING, TensorFacts, lay_out
from fllm_export.table.head_learner import HeadLearner, load_rule
from fllm_export.table.learner import Learner
from fllm_export.table.learning import Pairs
from fllm_export.table.living import LivingTable
from fllm_export.table.shard import PAGE_BYTES
from fllm_export.table.table import Table
from tests.made_heads import made_head

ITEMS, DIM, RANK, ROW = 60, 10, 6, 8
HUGE = 1 << 47
NAMES = {np.dtype(np.int64): "I64", np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}


def made() -> HeadLearner:
    contributions = np.random.default_rng(1).standard_normal((ITEMS, DIM))
    closed = Learner.of(np.arange(ITEMS, dtype=np.int64) * 3, contributions, 0.3, 0.1)
    return HeadLearner.of(closed, made_head(ITEMS, DIM, RANK, ROW))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "learner.safetensors"
    made().save(place)
    return place


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a file, and the bytes behind it."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:start]), raw[start:]


def put_header(path: Path, header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE_BYTES)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def put_tensors(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Write the file again with other tensors, whose layout is right."""
    header, data = header_of(path)
    dtypes = {"I64": np.int64, "F32": np.float32}
    tensors = {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], dtypes[entry["dtype"]]).reshape(entry["shape"]).copy()
        for name, entry in header.items()
        if not name.startswith(("__", PADDING))
    }
    change(tensors)
    facts = {name: TensorFacts(NAMES[a.dtype], a.shape, a.nbytes) for name, a in tensors.items()}
    layout = lay_out(facts, page_bytes=PAGE_BYTES, metadata=header["__metadata__"])
    body = b"".join(array.tobytes() + bytes(layout.gaps[name]) for name, array in tensors.items())
    path.write_bytes(layout.header + body)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        load_rule(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["item_ids", *HEAD_TENSORS])
def test_a_tensor_that_is_missing(path: Path, name: str) -> None:
    put_tensors(path, lambda tensors: tensors.pop(name))
    refused(path, "is not a learner; expected the file that the build wrote. Build again")


@pytest.mark.parametrize("name", ["item_ids", CLOSED_TENSOR, *HEAD_TENSORS])
@pytest.mark.parametrize("kind", ["another dtype", "a row less", "a dimension more", "no numbers"])
def test_a_tensor_of_another_form(path: Path, name: str, kind: str) -> None:
    forms: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "another dtype": lambda array: array.astype(np.float16),
        "a row less": lambda array: array[:-1],
        "a dimension more": lambda array: array[..., None],
        "no numbers": lambda array: array[:0],
    }
    put_tensors(path, lambda tensors: tensors.update({name: forms[kind](tensors[name])}))
    refused(path, "is not a learner")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [CLOSED_TENSOR, *(name for name, dtype in HEAD_TENSORS.items() if dtype == "F32")])
def test_a_number_that_is_not_finite(path: Path, name: str, number: float) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name].reshape(-1)[-1] = number

    put_tensors(path, change)
    refused(path, "is not a learner", name, "finite")


@pytest.mark.parametrize("count", [0, -1, -(1 << 63)])
def test_an_item_with_an_impossible_number_of_users(path: Path, count: int) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["counts"][3] = count

    put_tensors(path, change)
    refused(path, "is not a learner: an item has no users")


def test_an_item_that_occurs_twice(path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["item_ids"][1] = tensors["item_ids"][0]

    put_tensors(path, change)
    refused(path, "is not a learner: item id 0 occurs twice")


NUMBERS: dict[str, object] = {
    "no text": 7,
    "no JSON": "{",
    "no object": "[]",
    "a power above 1": {"user_power": 1.5},
    "a power of text": {"user_power": "0.3"},
    "an infinite activity": '{"user_power": 0.3, "activity": Infinity, "strength": 0.3, "scale": 0.5}',
    "no strength": {"strength": None},
    "a strength of 0": {"strength": 0},
    "a negative scale": {"scale": -1.0},
    "a scale of nothing": '{"user_power": 0.3, "activity": 0.1, "strength": 0.3, "scale": NaN}',
}


@pytest.mark.parametrize("lie", NUMBERS)
def test_numbers_of_the_rule_that_are_none(path: Path, lie: str) -> None:
    header, data = header_of(path)
    known, value = json.loads(header["__metadata__"]["numbers"]), NUMBERS[lie]
    header["__metadata__"]["numbers"] = json.dumps(known | value) if isinstance(value, dict) else value
    put_header(path, header, data)
    refused(path)


def test_no_numbers_at_all(path: Path) -> None:
    header, data = header_of(path)
    put_header(path, {name: entry for name, entry in header.items() if name != "__metadata__"}, data)
    refused(path, "is not a learner")


ENTRIES: dict[str, dict[str, object]] = {
    "beyond the end": {"data_offsets": [0, HUGE]},
    "a shape beyond memory": {"shape": [HUGE, HUGE]},
    "a shape of the same bytes": {"shape": [RANK, ITEMS]},
    "a shape below 0": {"shape": [-1, -RANK]},
    "a shape that wraps around": {"shape": [1 << 40, 1 << 26]},
    "offsets backwards": {"data_offsets": [HUGE, 0]},
    "offsets of text": {"data_offsets": ["0", "1440"]},
    "over the tensor before": {"data_offsets": [0, 4 * ITEMS * RANK]},
    "a dtype that is none": {"dtype": "F7"},
    "a dtype that is a list": {"dtype": ["F32"]},
}


@pytest.mark.parametrize("lie", ENTRIES)
def test_an_entry_that_lies_about_its_bytes(path: Path, lie: str) -> None:
    header, data = header_of(path)
    header["vectors"] |= ENTRIES[lie]
    put_header(path, header, data)
    refused(path)


@pytest.mark.parametrize("length", [0, 7, PAGE_BYTES, 1 << 30, (1 << 64) - 1])
def test_a_header_that_lies_about_its_length(path: Path, length: int) -> None:
    raw = path.read_bytes()
    path.write_bytes(length.to_bytes(8, "little") + raw[8:])
    refused(path, "header" if length else "")


@pytest.mark.parametrize("kept", [0, 7, 8, 100, PAGE_BYTES, -PAGE_BYTES, -1])
def test_a_file_that_was_cut_short(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    refused(path)


def test_bytes_behind_the_tensors(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(PAGE_BYTES))
    refused(path, "cut short or something was added")


def test_what_is_not_a_file(path: Path) -> None:
    path.unlink()
    refused(path, "is missing")
    path.mkdir()
    refused(path)


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    directory = tmp_path / "users"
    UserTable.create(directory, np.ones((1, ROW)), [10**6], quant="fp32", sketch="no", bias=np.zeros(1))
    LivingTable(directory).learn(Pairs.of(np.array([1, 1, 2]), np.array([0, 5, 7], np.int32)), made())
    return directory


@pytest.mark.parametrize("rule", ["head", "closed form"])
@pytest.mark.parametrize("position", [ITEMS, (1 << 31) - 1])
def test_a_history_of_an_item_that_the_learner_does_not_have(learned: Path, position: int, rule: str) -> None:
    """No verification is asked for: what makes the rows must not read outside the items."""
    entry = Table(learned).layout.histories[0]
    history = learned / entry.name

    raw = bytearray(history.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    _, end = json.loads(raw[8:start])["items"]["data_offsets"]
    raw[start + end - 4 : start + end] = np.int32(position).tobytes()
    history.write_bytes(raw)
    learner: HeadLearner | Learner = made()
    if rule == "closed form":
        contributions = np.random.default_rng(1).standard_normal((ITEMS, ROW)).astype(np.float32)
        learner = Learner.of(np.arange(ITEMS, dtype=np.int64), contributions, 0.3, 0.1)
    with pytest.raises(BundleError, match=f"item number {position}; expected numbers below {ITEMS},"):
        LivingTable(learned).learn(Pairs.of(np.array([2]), np.array([3], np.int32)), learner)


def test_a_learner_that_is_a_link_out_of_the_bundle(tmp_path: Path, tiny_bundle: Any, path: Path) -> None:
    """The manifest vouches for the bytes of the learner, wherever a link leads."""
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.path, bundle)
    document = json.loads((bundle / "manifest.json").read_text())
    document["files"]["learner.safetensors"] = {"bytes": path.stat().st_size, "sha256": "0" * 64}
    (bundle / "manifest.json").write_text(json.dumps(document))
    (bundle / "learner.safetensors").symlink_to(path)
    with pytest.raises(BundleError, match=r"learner\.safetensors has SHA-256"):
        UserTable.open(bundle / "users").learn([1], [0])
    document["files"]["../learner.safetensors"] = document["files"].pop("learner.safetensors")
    (bundle / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"names '\.\./learner\.safetensors'"):
        UserTable.open(bundle / "users").learn([1], [0])
