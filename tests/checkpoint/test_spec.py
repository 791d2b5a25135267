from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.checkpoint.feature_spec import ACTIVATIONS, FeatureSpec
from fllm_export.checkpoint.spec import MAPPER_KINDS, POOLINGS, CheckpointSpec
from fllm_export.errors import BundleError
from fllm_export.link import LINKS

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

LINK = {"kind": "power", "exponent": 2}
FEATURES = [{"kind": "dense", "activation": "tanh"}, {"kind": "normalize"}]

steps = st.one_of(
    st.just(FeatureSpec("normalize")), st.builds(FeatureSpec, st.just("dense"), st.sampled_from(ACTIVATIONS))
)
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
    features=st.lists(steps, max_size=4).map(tuple),
    link=st.sampled_from(LINKS),
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
    assert CheckpointSpec.from_json(GOOD, FILE).to_json() == GOOD
    for version, newer in ((2, {"mapper": "kernel"}), (2, {"features": FEATURES}), (3, {"link": LINK})):
        content = {**GOOD, **newer, "schema_version": version}
        assert CheckpointSpec.from_json(content, FILE).to_json() == content


@pytest.mark.parametrize("version", [1, 2])
def test_a_link_needs_version_3(version: int) -> None:
    with pytest.raises(BundleError, match=f"schema_version is {version}; expected 3, because of"):
        CheckpointSpec.from_json({**GOOD, "link": LINK, "schema_version": version}, FILE)


def test_an_older_release_refuses_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads schema versions up to 2."""
    content = CheckpointSpec.from_json({**GOOD, "link": LINK, "schema_version": 3}, FILE).to_json()
    monkeypatch.setattr("fllm_export.checkpoint.spec.SCHEMA_VERSION", 2)
    with pytest.raises(BundleError, match=r"schema_version is 3; expected at most 2.*Upgrade fllm-export"):
        CheckpointSpec.from_json(content, FILE)


@pytest.mark.parametrize("link", [None, "power", {"kind": "sigmoid"}, {"kind": "power", "exponent": 2.5}], ids=str)
def test_what_is_not_a_link_is_refused(link: Any) -> None:
    with pytest.raises(BundleError, match=r"filterllm.json: .*`link`"):
        CheckpointSpec.from_json({**GOOD, "link": link, "schema_version": 3}, FILE)


def test_what_needs_version_2_is_not_read_as_version_1() -> None:
    """An older release would say that the mapper or key is wrong; this one says what is: the version."""
    for newer in ({"mapper": "kernel"}, {"features": FEATURES}):
        with pytest.raises(BundleError, match="schema_version is 1; expected 2, because of"):
            CheckpointSpec.from_json({**GOOD, **newer}, FILE)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("schema_version", 4, ["schema_version is 4", "at most 3"]),
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
        ("mapper", "conv", ["mapper is 'conv'", "identity, linear, linear_relu, mlp, kernel"]),
        ("first_user_row", -1, ["first_user_row is -1", "0 or greater"]),
        ("first_user_row", 10, ["mapper is 'linear_relu'", "identity"]),
        ("features", [], ["features is []", "at least one step", "Remove the key"]),
        ("features", {"kind": "normalize"}, ["a list of at least one step"]),
        ("features", ["normalize"], ["features[0] is 'normalize'", "an object with the key 'kind'"]),
        ("features", [{"kind": "layer_norm"}], ["features[0]: kind is 'layer_norm'", "one of normalize, dense"]),
        ("features", [{}], ["features[0]: the key 'kind' is missing"]),
        ("features", [{"kind": ["dense"]}], ["features[0]: kind is ['dense']"]),
        (
            "features",
            [*FEATURES, {"kind": "dense"}],
            ["features[2]: the key 'activation' is missing"],
        ),
        ("features", [{"kind": "dense", "activation": "selu"}], ["features[0]: activation is 'selu'", "gelu, sigmoid"]),
        ("features", [{"kind": "dense", "activation": None}], ["features[0]: activation is None"]),
        ("features", [{"kind": "normalize", "p": 2}], ["features[0] has the unknown key 'p'", "only kind"]),
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


def test_an_extended_vocabulary_has_no_features() -> None:
    content = {**GOOD, "schema_version": 2, "mapper": "identity", "first_user_row": 3, "features": FEATURES}
    with pytest.raises(BundleError, match="because first_user_row is given"):
        CheckpointSpec.from_json(content, FILE)
