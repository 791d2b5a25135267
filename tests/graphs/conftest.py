"""Merged item encoders of both families, made without a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pytest

if TYPE_CHECKING:
    from fllm_export.checkpoint.model import ItemEncoder, MapperKind, Pooling
    from fllm_export.graphs.encoder import IdsAndMask

Side = Literal["left", "right", "none"]


class MakeEncoder(Protocol):
    """Makes an item encoder in evaluation mode, with a random mapper to 16 dims."""

    def __call__(self, directory: Path, pooling: Pooling, kind: MapperKind) -> ItemEncoder: ...


@pytest.fixture(scope="session")
def make_encoder() -> MakeEncoder:
    """The factory of item encoders; imports torch on its first call, as the head graph's tests need none."""

    def make(directory: Path, pooling: Pooling, kind: MapperKind) -> ItemEncoder:
        import torch
        from transformers import AutoModel

        from fllm_export.checkpoint.model import ItemEncoder, make_mapper

        torch.manual_seed(7)
        encoder = AutoModel.from_pretrained(directory)
        return ItemEncoder(encoder, pooling, make_mapper(kind, encoder.config.hidden_size, 16, 24)).eval()

    return make


class ExportTiny(Protocol):
    """Exports a tiny encoder described as ``family-pooling-mapper``; returns it and its ONNX file."""

    def __call__(self, description: str, example: IdsAndMask) -> tuple[ItemEncoder, Path]: ...


@pytest.fixture(scope="session")
def export_tiny(
    make_encoder: MakeEncoder,
    tiny_bert_dir: Path,
    tiny_roberta_dir: Path,
    tiny_llama_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> ExportTiny:
    """The factory of exported encoders."""

    def export(description: str, example: IdsAndMask) -> tuple[ItemEncoder, Path]:
        from fllm_export.graphs.encoder import export_encoder

        family, pooling, kind = description.split("-")
        directory = {"bert": tiny_bert_dir, "roberta": tiny_roberta_dir, "llama": tiny_llama_dir}[family]
        encoder = make_encoder(directory, pooling, kind)
        path = tmp_path_factory.mktemp(description) / "encoder" / "model.onnx"
        export_encoder(encoder, path, example=example)
        return encoder, path

    return export


def make_batch(items: int, length: int, side: Side, vocabulary: int, seed: int = 0) -> IdsAndMask:
    """Return random token ids and a mask; each item but the first is shorter, down to one token."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(5, vocabulary, (items, length))
    mask = np.ones((items, length), np.int64)
    if side != "none":
        for item, real in enumerate(generator.integers(1, length + 1, items)):
            if item:
                padding = slice(0, length - real) if side == "left" else slice(real, length)
                mask[item, padding] = 0
                ids[item, padding] = 0
    return ids, mask


SHAPES: list[tuple[int, int, Side]] = [
    (1, 1, "none"),
    (1, 2, "none"),
    (3, 1, "none"),
    (2, 9, "left"),
    (4, 9, "right"),
    (5, 33, "left"),
    (3, 64, "right"),
]
