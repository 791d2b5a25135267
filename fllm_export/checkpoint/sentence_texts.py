"""How a sentence-transformers model prepares a text: its prompt, the longest text, letter case and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fllm_export.checkpoint.base import CONFIG_FILE, TOKENIZER_FILE
from fllm_export.errors import BundleError
from fllm_export.prompt import PADDING_SIDES, PLACEHOLDER, PaddingSide, load_tokenizer
from fllm_export.strict_json import read_object

MODEL_FILE = "config_sentence_transformers.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_FAMILIES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
TRANSFORMER_FILES = tuple(f"sentence_{family}_config.json" for family in _FAMILIES)
"""Where a Transformer module's settings can be, the first one that exists; all but the first are old names."""

_LONGEST = 2**31 - 1
"""Larger lengths stand for "no limit" in tokenizers."""

# What a setting has to be, so that the model's vectors are those of its hidden states and nothing else.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "transformer_task": (None, "feature-extraction"),
    "module_output_name": (None, "token_embeddings"),
    "modality_config": (None, {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}),
    "processing_kwargs": (None, {}),
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
}
# How texts are packed for the GPU does not change a vector.
_WITHOUT_EFFECT = ("unpad_inputs",)
_ARGUMENTS = tuple(
    f"{part}_{word}" for word in ("args", "kwargs") for part in ("model", "tokenizer", "processor", "config")
)
_HARMLESS_ARGUMENTS = {"trust_remote_code", "torch_dtype", "dtype", "attn_implementation", "add_pooling_layer"}


@dataclass(frozen=True)
class SentenceTexts:
    """What happens to a text before the encoder.

    Attributes:
        prompt: what stands before every text, or the empty string.
        max_length: tokens at most, special tokens included; None where no file limits them.
        padding_side: where shorter sequences are filled up.
    """

    prompt: str
    max_length: int | None
    padding_side: PaddingSide

    @property
    def template(self) -> str:
        """The prompt with the placeholder ``{text}``."""
        return self.prompt + PLACEHOLDER

    @classmethod
    def read(cls, directory: Path, transformer: Path) -> SentenceTexts:
        """Read the settings of a model and of its Transformer module.

        Args:
            directory: of the model, with ``config_sentence_transformers.json``.
            transformer: the folder of the Transformer module.

        Raises:
            BundleError: a file is damaged, or a setting is invalid or cannot be expressed; it is named.
        """
        source = next((path for name in TRANSFORMER_FILES if (path := transformer / name).is_file()), None)
        settings = {} if source is None else read_object(source)
        path = transformer / _TOKENIZER_CONFIG
        tokenizer = read_object(path) if path.is_file() else {}
        if source is not None:
            _check_settings(source, settings)
            if _flag(source, settings, "do_lower_case") and not _lowers(transformer / TOKENIZER_FILE):
                raise BundleError(
                    f"{source}: do_lower_case is true and {transformer / TOKENIZER_FILE} keeps capital letters",
                    expected="a tokenizer that lowers the case itself",
                    fix="Prepend tokenizers.normalizers.Lowercase() to its normalizer and save it",
                )
        if tokenizer.get("truncation_side", "right") != "right":
            raise BundleError(f"{path}: truncation_side is {tokenizer['truncation_side']!r}", expected="right")
        side = tokenizer.get("padding_side", "right")
        if side not in PADDING_SIDES:
            raise BundleError(f"{path}: padding_side is {side!r}", expected=" or ".join(PADDING_SIDES))
        return cls(_prompt(directory / MODEL_FILE), _max_length(source, settings, transformer, tokenizer), side)


def _check_settings(source: Path, settings: dict[str, Any]) -> None:
    for key, value in settings.items():
        if key in ("max_seq_length", "do_lower_case", *_WITHOUT_EFFECT):
            continue
        if key in _ARGUMENTS:
            strange = sorted(set(value) - _HARMLESS_ARGUMENTS) if isinstance(value, dict) else [value]
            if value is not None and strange:
                raise _refused(source, f"{key} has {strange[0]!r}", "only " + ", ".join(sorted(_HARMLESS_ARGUMENTS)))
        elif key not in _PLAIN:
            raise _refused(source, f"the key {key!r} is unknown", "max_seq_length and do_lower_case")
        elif value not in _PLAIN[key]:
            raise _refused(source, f"{key} is {value!r}", f"{_PLAIN[key][-1]!r}")


def _refused(source: Path, found: str, expected: str) -> BundleError:
    fix = "Save a model that needs no such setting; without it the vectors would be others"
    return BundleError(f"{source}: {found}", expected=expected, fix=fix)


def _flag(source: Path, settings: dict[str, Any], key: str) -> bool:
    value = settings.get(key, False)
    if not isinstance(value, bool):
        raise BundleError(f"{source}: {key} is {value!r}", expected="true or false")
    return value


def _lowers(tokenizer: Path) -> bool:
    """Return whether capital letters reach no token, by trying the tokenizer's normalizer."""
    normalizer = load_tokenizer(tokenizer).normalizer
    capitals = "AZ\u00c4\u0416"
    return normalizer is not None and normalizer.normalize_str(capitals) == normalizer.normalize_str(capitals.lower())


def _max_length(
    source: Path | None, settings: dict[str, Any], transformer: Path, tokenizer: dict[str, Any]
) -> int | None:
    """Return the module's own ``max_seq_length``, or else the lower of the tokenizer's and the encoder's limit."""
    own = settings.get("max_seq_length")
    if own is not None:
        if isinstance(own, bool) or not isinstance(own, int) or not 1 <= own <= _LONGEST:
            raise BundleError(f"{source}: max_seq_length is {own!r}", expected=f"an integer from 1 to {_LONGEST}")
        return own
    config = transformer / CONFIG_FILE
    encoder = read_object(config) if config.is_file() else {}
    return _least([tokenizer.get("model_max_length"), encoder.get("max_position_embeddings")])


def _least(limits: Sequence[Any]) -> int | None:
    numbers = [n for n in limits if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= _LONGEST]
    return min(numbers, default=None)


def _prompt(path: Path) -> str:
    """Return the prompt that stands before every text unless another one is chosen."""
    if not path.is_file():
        return ""
    content = read_object(path)
    kind = content.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise BundleError(f"{path}: model_type is {kind!r}", expected="SentenceTransformer, one vector per text")
    prompts, name = content.get("prompts") or {}, content.get("default_prompt_name")
    if name is None:
        return ""
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if not isinstance(prompt, str) or PLACEHOLDER in prompt:
        raise BundleError(
            f"{path}: default_prompt_name is {name!r}, whose prompt is {prompt!r}",
            expected=f"the name of a string in prompts, without {PLACEHOLDER}",
            fix="Correct default_prompt_name, or set it to null",
        )
    return prompt
