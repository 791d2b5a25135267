"""Bundles of every released format version stay readable and give the answers that they gave when they were made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fllm_export import Bundle, Runtime
from fllm_export.engines.registry import ENGINES
from fllm_export.table.codec_names import CODEC_NAMES

from .answers import assert_as_frozen

FROZEN = sorted(path for path in Path(__file__).parent.glob("v*/*") if path.is_dir())
TEXTS = ["a film about jazz", "graphs about genes", "jazz"]


# Those for GPUs have tests of their own, in tests/engines.
@pytest.mark.parametrize("engine", [name for name in ENGINES if name not in ("cuda", "tensorrt")])
@pytest.mark.parametrize("bundle", FROZEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_frozen_bundle_answers_as_it_did(bundle: Path, engine: str) -> None:
    Bundle.load(bundle).verify()
    expected = json.loads(bundle.with_suffix(".json").read_text())
    runtime = Runtime.open(bundle, engine=engine)
    for mode, items in expected.items():
        assert_as_frozen(runtime.topk(TEXTS, 25, mode=mode, seed=3), items)


def test_every_codec_is_frozen() -> None:
    assert {path.name for path in FROZEN} == set(CODEC_NAMES)
