"""Writes sentence-transformers directories around a tiny encoder, in the form of old and of new releases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

TANH = "torch.nn.modules.activation.Tanh"


class SentenceModel:
    """A directory that grows by one module per call.

    Args:
        directory: a new directory.
        encoder: the Hugging Face directory of the Transformer module, which is copied.
        transformer: the folder of the Transformer module; the directory itself by default.
    """

    def __init__(self, directory: Path, encoder: Path, transformer: str = "") -> None:
        self.path = directory
        self.transformer = directory / transformer
        shutil.copytree(encoder, self.transformer)
        self.entries: list[dict[str, Any]] = []
        self.add("sentence_transformers.models.Transformer", transformer)
        self.put(self.transformer / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})

    def put(self, file: Path, content: object) -> None:
        """Write JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))

    def add(self, kind: str, path: str, config: object = None) -> Path:
        """List a module of the type ``kind``; write its ``config.json`` when there is one. Returns its folder."""
        number = len(self.entries)
        self.entries.append({"idx": number, "name": str(number), "path": path, "type": kind})
        self.put(self.path / "modules.json", self.entries)
        if config is not None:
            self.put(self.path / path / "config.json", config)
        return self.path / path

    def pool(self, mode: str = "mean_tokens", hidden: int = 32, **more: object) -> Path:
        """Add a Pooling module with the boolean keys of old releases."""
        modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
        config = {
            "word_embedding_dimension": hidden,
            **{f"pooling_mode_{name}": name == mode for name in modes},
            **more,
        }
        return self.add("sentence_transformers.models.Pooling", "1_Pooling", config)

    def normalize(self) -> None:
        """Add a Normalize module without a folder, as old releases do."""
        self.add("sentence_transformers.models.Normalize", f"{len(self.entries)}_Normalize")

    def dense(self, made: int, taken: int, activation: str = TANH, *, bias: bool = True, **more: object) -> Path:
        """Add a Dense module with random weights in ``model.safetensors``."""
        config = {"in_features": taken, "out_features": made, "bias": bias, "activation_function": activation, **more}
        folder = self.add("sentence_transformers.models.Dense", f"{len(self.entries)}_Dense", config)
        generator = np.random.default_rng(made)
        weights = {"linear.weight": generator.standard_normal((made, taken)).astype(np.float32) / 4}
        if bias:
            weights["linear.bias"] = generator.standard_normal(made).astype(np.float32)
        save_file(weights, folder / "model.safetensors")
        return folder
