"""Make the frozen checkpoint of a schema version; run once when a version is released, never again for it.

    python tests/format/checkpointgen.py tests/format/checkpoints

The base model is a BERT of a few kilobytes. The file beside each checkpoint holds its fingerprint and the item vectors
that every later reader must compute.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from fllm_export import Checkpoint
from fllm_export.checkpoint.adapted import load_unmerged
from fllm_export.checkpoint.features import Dense, Features, Normalize
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.spec import CheckpointSpec, MapperKind
from fllm_export.checkpoint.users import UserRows
from fllm_export.link import EXPONENTIAL, Link

WORDS = ["[PAD]", "a", "film", "about", "graphs", "genes", "jazz", "?"]
TEXTS = ["a film about jazz", "graphs about genes", "jazz"]
HIDDEN, WIDTH, LANDMARKS, DIM, USERS = 8, 6, 5, 4, 7

HEADS: dict[str, tuple[MapperKind, bool, Link]] = {
    "v1": ("linear_relu", False, EXPONENTIAL),
    "v2": ("kernel", True, EXPONENTIAL),
    "v3": ("kernel", True, Link(2)),
}
"""Folder -> the mapper's kind, whether there are features, and the link."""


def base_model(folder: Path) -> None:
    """Write a BERT of one layer and a tokenizer of whole words."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=HIDDEN,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)


def checkpoint(kind: MapperKind, featured: bool, link: Link, base: Path) -> Checkpoint:
    """Return a checkpoint of a version's features and mapper."""
    generator = np.random.default_rng(11)
    draw = generator.standard_normal
    features = Features((Dense(draw((WIDTH, HIDDEN)), draw(WIDTH), "gelu"), Normalize()) if featured else ())
    width = WIDTH if featured else HIDDEN
    if kind == "kernel":
        shapes: dict[str, tuple[int, ...]] = {"0.weight": (LANDMARKS, width), "0.bias": (LANDMARKS,)}
        shapes |= {"2.weight": (DIM, LANDMARKS), "2.bias": (DIM,)}
    else:
        shapes = {"weight": (DIM, width), "bias": (DIM,)}
    mapper = Mapper(kind, {name: draw(shape) for name, shape in shapes.items()})
    facts = (str(base), "{text} ?", "mean", 12, "right", kind, DIM, USERS)
    spec = CheckpointSpec(*facts, features=features.specs, link=link)
    users = UserRows.from_array(draw((USERS, DIM)).astype(np.float32), generator.permutation(99)[:USERS])
    return Checkpoint(spec, base, None, mapper, users, features)


def make(folder: Path) -> None:
    """Write a checkpoint for each version that is not there yet, and what it computes."""
    for version, (kind, featured, link) in HEADS.items():
        if (folder / version).exists():
            continue
        base_model(folder / "base")
        checkpoint(kind, featured, link, folder / "base").save(folder / version)
        for file in (folder / "base").iterdir():
            file.unlink()
        (folder / "base").rmdir()
        made = Checkpoint.load(folder / version)
        vectors = load_unmerged(made).item_vectors(TEXTS).tolist()
        content = {"fingerprint": made.fingerprint(), "item_vectors": dict(zip(TEXTS, vectors, strict=True))}
        (folder / f"{version}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
