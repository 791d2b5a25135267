"""Changing files of a checkpoint, and what must come of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.errors import BundleError

USERS = "users-00001-of-00001.safetensors"
TEMPLATE = "About {text}?"


def edit_tensors(file: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def edit_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refused(action: Callable[[], object], *words: object) -> None:
    with pytest.raises(BundleError) as caught:
        action()
    for word in words:
        assert str(word) in str(caught.value)


def load(folder: Path) -> Callable[[], object]:
    return lambda: Checkpoint.load(folder)


def read_users(folder: Path) -> Callable[[], object]:
    return lambda: list(Checkpoint.load(folder).users.chunks())


def merged(folder: Path) -> Callable[[], object]:
    from fllm_export.checkpoint.merge import merge

    return lambda: merge(Checkpoint.load(folder), ["jazz"])
