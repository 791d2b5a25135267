"""Every seed of the fuzzers, and many broken forms of it, through the readers in Python."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("pydantic_core") is None:
    pytest.skip("the extra server is not installed", allow_module_level=True)

from . import harnesses

SEEDS = [(kind, path) for kind in harnesses.KINDS for path in sorted((harnesses.CORPUS / kind).iterdir())]


@pytest.mark.parametrize(("kind", "seed"), SEEDS, ids=[f"{kind}-{path.name}" for kind, path in SEEDS])
def test_a_seed_and_what_becomes_of_it(kind: str, seed: Path) -> None:
    data = seed.read_bytes()
    work = harnesses.KINDS[kind]
    work(data)
    random = np.random.default_rng(len(data))
    for _ in range(30):
        broken = np.frombuffer(data, np.uint8).copy()
        at = random.integers(min(len(broken), 600), size=2)
        broken[at] = random.integers(256, size=2)
        work(broken.tobytes())
    for end in random.integers(len(data), size=4):
        work(data[:end])


@pytest.mark.parametrize("kind", harnesses.KINDS)
def test_a_kind_has_a_seed_that_is_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus whose every seed is refused at once would fuzz the first check alone."""
    good = {
        "layout": ("TableLayout", "load"),
        "manifest": ("Manifest", "load"),
        "tombstones": ("Tombstones", "load"),
        "request": ("Question", "parse"),
    }
    if kind == "shard":
        reader, name = harnesses, "map_tensors"
    else:
        reader, name = getattr(harnesses, good[kind][0]), good[kind][1]
    original, read = getattr(reader, name), []

    def counted(*arguments: object, **named: object) -> object:
        found = original(*arguments, **named)
        read.append(found)
        return found

    monkeypatch.setattr(reader, name, counted)
    for path in (harnesses.CORPUS / kind).iterdir():
        harnesses.KINDS[kind](path.read_bytes())
    assert read
