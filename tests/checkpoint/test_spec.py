from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.checkpoint.spec import MAPPER_KINDS, POOLINGS, SCHEMA_VERSION, CheckpointSpec
from fllm_export.errors import BundleError

FILE = Path("folder/filterllm.json")

GOOD: dict[str, Any] = {
    "schema_version": 1,
    "base_model": "base",
    "template": "What about {text}?",
    "pooling": "last",
    "max_length": 512,
    "padding_side": "left",
    "mapper": "linear_relu",
    "dim": 64,
    "users": 1000,
}

specs = st.builds(
    CheckpointSpec,
    base_model=st.text(min_size=1),
    template=st.text().filter(lambda text: "{text}" not in text).map(lambda text: text + "{text}"),
    pooling=st.sampled_from(POOLINGS),
    max_length=st.integers(1, 10**6),
    padding_side=st.sampled_from(("left", "right")),
    mapper=st.sampled_from(MAPPER_KINDS),
    dim=st.integers(1, 10**5),
    users=st.integers(1, 10**10),
)


@given(specs)
def test_round_trip(spec: CheckpointSpec) -> None:
    text = json.dumps(spec.to_json())
    assert CheckpointSpec.from_json(json.loads(text), FILE) == spec


def test_first_user_row_round_trip_and_absence() -> None:
    spec = CheckpointSpec.from_json({**GOOD, "mapper": "identity", "first_user_row": 0}, FILE)
    assert spec.first_user_row == 0
    assert CheckpointSpec.from_json(spec.to_json(), FILE) == spec
    assert "first_user_row" not in CheckpointSpec.from_json(GOOD, FILE).to_json()


def test_the_version_written_is_the_version_read() -> None:
    assert CheckpointSpec.from_json(GOOD, FILE).to_json() == {**GOOD, "schema_version": SCHEMA_VERSION}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("schema_version", 2, ["schema_version is 2", "at most 1"]),
        ("schema_version", 0, ["schema_version is 0"]),
        ("schema_version", "1", ["schema_version is '1'", "integer"]),
        ("base_model", "", ["base_model is ''", "string"]),
        ("template", "no placeholder", ["template is 'no placeholder'", "{text} exactly once"]),
        ("template", "{text} {text}", ["exactly once"]),
        ("template", 5, ["template is 5", "a string"]),
        ("pooling", "max", ["pooling is 'max'", "last, mean, cls"]),
        ("max_length", 0, ["max_length is 0", "1 or greater"]),
        ("max_length", 1.5, ["max_length is 1.5", "integer"]),
        ("users", True, ["users is True", "integer"]),
        ("dim", -3, ["dim is -3", "1 or greater"]),
        ("padding_side", "middle", ["padding_side is 'middle'", "left, right"]),
        ("mapper", "conv", ["mapper is 'conv'", "identity, linear, linear_relu, mlp"]),
        ("first_user_row", -1, ["first_user_row is -1", "0 or greater"]),
        ("first_user_row", 10, ["mapper is 'linear_relu'", "identity"]),
        ("colour", "red", ["unknown key 'colour'", "expected only the keys"]),
    ],
)
def test_wrong_values_are_named(key: str, value: object, words: list[str]) -> None:
    with pytest.raises(BundleError) as caught:
        CheckpointSpec.from_json({**GOOD, key: value}, FILE)
    for word in [str(FILE), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(BundleError, match=key):
        CheckpointSpec.from_json({k: v for k, v in GOOD.items() if k != key}, FILE)
