"""Checkpoints of every schema version stay readable, and are what they were when they were made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.checkpoint.spec import SCHEMA_VERSION

FOLDER = Path(__file__).parent / "checkpoints"
FROZEN = sorted(path for path in FOLDER.iterdir() if path.is_dir())


def test_every_version_is_frozen() -> None:
    assert [path.name for path in FROZEN] == [f"v{version}" for version in range(1, SCHEMA_VERSION + 1)]


@pytest.mark.parametrize("folder", FROZEN, ids=lambda path: path.name)
def test_a_frozen_checkpoint_is_what_it_was(folder: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(folder)
    assert checkpoint.spec.schema_version == int(folder.name[1:])
    expected = json.loads(folder.with_suffix(".json").read_text())
    assert checkpoint.fingerprint() == expected["fingerprint"]
    checkpoint.save(tmp_path / "copy")
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert (tmp_path / "copy" / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.mark.parametrize("folder", FROZEN, ids=lambda path: path.name)
def test_a_frozen_checkpoint_computes_what_it_did(folder: Path) -> None:
    pytest.importorskip("torch")
    from fllm_export.checkpoint.adapted import load_unmerged

    expected = json.loads(folder.with_suffix(".json").read_text())["item_vectors"]
    found = load_unmerged(Checkpoint.load(folder)).item_vectors(list(expected))
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-4, atol=1e-5)
