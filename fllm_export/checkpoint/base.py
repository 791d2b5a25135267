"""The base model: a Hugging Face directory with config, tokenizer and safetensors weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fllm_export.checkpoint.tensors import StoredTensor, open_tensors
from fllm_export.errors import BundleError
from fllm_export.prompt import load_tokenizer
from fllm_export.strict_json import read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_GENERATION = "generation_config.json"
_SMALL_FILES = (
    CONFIG_FILE,
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    _GENERATION,
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_HIDDEN_KEYS = ("hidden_size", "n_embd", "d_model")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class BaseModel:
    """A directory that :meth:`check` has found complete.

    Attributes:
        path: the directory.
        config: the content of its ``config.json``.
    """

    path: Path
    config: dict[str, Any]

    @classmethod
    def check(cls, path: Path) -> BaseModel:
        """Check that config, tokenizer and all weight files are there and whole, by their headers.

        Raises:
            BundleError: naming the file that is missing or damaged.
        """
        if not path.is_dir():
            raise BundleError(f"the base model's directory {path} does not exist", expected="a Hugging Face model")
        _require(path / CONFIG_FILE, "Save the model there with its save_pretrained")
        _require(
            path / TOKENIZER_FILE,
            "Write it with transformers.AutoTokenizer.from_pretrained(directory).save_pretrained(directory)",
        )
        model = cls(path, read_object(path / CONFIG_FILE))
        if (path / _GENERATION).is_file():
            read_object(path / _GENERATION)  # Transformers reads it without a limit.
        for file in model.weight_files():
            open_tensors(file)
        return model

    @property
    def hidden(self) -> int | None:
        """Dimensions of the hidden state, where the config names them."""
        text = self.config.get("text_config")
        for config in (text if isinstance(text, dict) else {}, self.config):
            for key in _HIDDEN_KEYS:
                if isinstance(config.get(key), int):
                    return int(config[key])
        return None

    def weight_files(self) -> list[Path]:
        """Return the safetensors files that hold the weights.

        Raises:
            BundleError: there are none; other formats are not read, because they run code when opened.
        """
        if (self.path / _WEIGHTS).is_file():
            return [self.path / _WEIGHTS]
        if not (self.path / _INDEX).is_file():
            raise BundleError(
                f"{self.path} has no {_WEIGHTS} and no {_INDEX}",
                expected="weights in the safetensors format",
                fix="Load the model with transformers and save it with save_pretrained, which writes safetensors",
            )
        index = read_object(self.path / _INDEX)
        names = index.get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise BundleError(f"{self.path / _INDEX} has no weight_map", expected="a file name for each tensor")
        return [self.path / Path(name).name for name in sorted(set(names.values()))]

    def files(self) -> list[Path]:
        """Return the files that make the model: config, tokenizer, weights and licence texts."""
        small = [self.path / name for name in _SMALL_FILES if (self.path / name).is_file()]
        index = [self.path / _INDEX] if not (self.path / _WEIGHTS).is_file() else []
        licences = sorted(file for pattern in _LICENCES for file in self.path.glob(pattern) if file.is_file())
        return [*small, *index, *self.weight_files(), *licences]

    def tensors(self) -> dict[str, StoredTensor]:
        """Return all weights by name, unread."""
        return {name: tensor for file in self.weight_files() for name, tensor in open_tensors(file).items()}

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer with its own padding and truncation switched off.

        Raises:
            BundleError: ``tokenizer.json`` cannot be read.
        """
        return load_tokenizer(self.path / TOKENIZER_FILE)

    @cached_property
    def pad_id(self) -> int:
        """The token id to pad with: the tokenizer's padding token, else the config's, else its end token.

        Padded positions are masked, so that the choice changes no result; 0 when nothing is declared.
        """
        tokenizer_config = self.path / "tokenizer_config.json"
        if tokenizer_config.is_file():
            token = read_object(tokenizer_config).get("pad_token")
            # Older files hold the token as an object with its content and flags.
            content = token.get("content") if isinstance(token, dict) else token
            found = self.tokenizer().token_to_id(content) if isinstance(content, str) else None
            if found is not None:
                return int(found)
        for key in ("pad_token_id", "eos_token_id"):
            value = self.config.get(key)
            first = value[0] if isinstance(value, list) and value else value
            if isinstance(first, int) and first >= 0:
                return first
        return 0


def resolve_base(name: str, directory: Path, named_in: str) -> Path:
    """Return the directory of the base model called ``name``.

    Args:
        name: a path relative to ``directory``, an absolute path, or the id of a model in the local Hugging Face
            cache. Nothing is ever downloaded here.
        directory: where relative paths start.
        named_in: the file or argument that names the model, for messages.

    Raises:
        BundleError: there is no such directory and no such model in the cache.
    """
    path = directory / name
    if path.is_dir():
        return path
    if _HUB_ID.fullmatch(name):
        cached = _cached(name)
        if cached is not None:
            return cached
    raise BundleError(
        f"the base model {name!r} of {named_in} is neither at {path} nor in the Hugging Face cache",
        expected=f"a directory with {CONFIG_FILE}, {TOKENIZER_FILE} and safetensors weights",
        fix=f"Correct the path, or fetch the model first: hf download {name}",
    )


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _require(file: Path, fix: str) -> None:
    if not file.is_file():
        raise BundleError(f"the base model lacks {file}", expected=f"{file.name} beside its weights", fix=fix)
