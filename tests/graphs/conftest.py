"""Merged item encoders of both families, made without a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pytest

if TYPE_CHECKING:
    from fllm_export.checkpoint.model import ItemEncoder, MapperKind, Pooling
    from fllm_export.graphs.encoder import IdsAndMask

Side = Literal["left", "right", "none"]


class MakeEncoder(Protocol):
    """Makes an item encoder in evaluation mode, with a random mapper to 16 dims behind features of the given kinds."""

    def __call__(
        self, directory: Path, pooling: Pooling, kind: MapperKind, features: Sequence[str] = ()
    ) -> ItemEncoder: ...


@pytest.fixture(scope="session")
def make_encoder() -> MakeEncoder:
    """The factory of item encoders; imports torch on its first call, as the head graph's tests need none."""

    def make(directory: Path, pooling: Pooling, kind: MapperKind, features: Sequence[str] = ()) -> ItemEncoder:
        import torch
        from transformers import AutoModel

        from fllm_export.checkpoint.feature_layers import feature_layers
        from fllm_export.checkpoint.model import ItemEncoder, make_mapper
        from tests.conftest import small_features

        torch.manual_seed(7)
        encoder = AutoModel.from_pretrained(directory)
        steps = small_features(encoder.config.hidden_size, features, np.random.default_rng(7))
        mapper = make_mapper(kind, steps.width(encoder.config.hidden_size) or 0, 16, 24)
        return ItemEncoder(encoder, pooling, mapper, feature_layers(steps)).eval()

    return make


class ExportTiny(Protocol):
    """Exports a tiny encoder described as ``family-pooling-mapper`` or ``family-pooling-mapper-step-step...``.

    It returns the encoder and its ONNX file.
    """

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

        family, pooling, kind, *features = description.split("-")
        directory = {"bert": tiny_bert_dir, "roberta": tiny_roberta_dir, "llama": tiny_llama_dir}[family]
        encoder = make_encoder(directory, pooling, kind, features)
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
