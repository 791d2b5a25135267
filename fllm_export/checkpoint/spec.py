"""``filterllm.json``: the few facts that turn tensors into a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fllm_export.checkpoint.feature_spec import FeatureSpec, read_features
from fllm_export.directory_kinds import CHECKPOINT
from fllm_export.errors import BundleError
from fllm_export.link import EXPONENTIAL, Link
from fllm_export.prompt import PADDING_SIDES, PLACEHOLDER, PaddingSide
from fllm_export.strict_json import read_object

SCHEMA_VERSION = 3
"""The newest schema version that is read. A checkpoint is written with the oldest one that can express it."""

SPEC_FILE = CHECKPOINT.marker

Pooling = Literal["last", "mean", "cls"]
MapperKind = Literal["identity", "linear", "linear_relu", "mlp", "kernel"]

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MAPPER_KINDS: tuple[MapperKind, ...] = get_args(MapperKind)

_INTEGERS = ("max_length", "dim", "users")
_STRINGS = ("base_model", "template")
_CHOICES: dict[str, tuple[str, ...]] = {
    "pooling": POOLINGS,
    "mapper": MAPPER_KINDS,
    "padding_side": PADDING_SIDES,
}
_FIRST, _FEATURES, _LINK = "first_user_row", "features", "link"
_OPTIONAL = {_FIRST, _FEATURES, _LINK}


@dataclass(frozen=True)
class CheckpointSpec:
    """The declared facts of a checkpoint.

    Attributes:
        base_model: the HF base model: a path relative to the checkpoint's directory, an absolute path, or
            the id of a model in the local Hugging Face cache.
        template: the prompt around the item's text, with the placeholder ``{text}`` exactly once.
        pooling: which hidden state stands for the item: the ``last`` real token, the ``mean`` of the real
            tokens, or the first real token (``cls``).
        max_length: tokens at most, special tokens included.
        padding_side: where shorter sequences of a batch are filled up, ``left`` or ``right``.
        mapper: the kind of the map from features to item vector.
        dim: dimensions of the item vector and of a user row.
        users: number of user rows.
        first_user_row: for an extended vocabulary, the row of the base model's output embedding that is user
            number 0: the users are rows ``first_user_row`` to ``first_user_row + users - 1``, and the
            checkpoint holds no user rows of its own. None when the user rows are files of the checkpoint.
        features: the steps between pooling and mapper; none for most models.
        link: how scores become probabilities.
    """

    base_model: str
    template: str
    pooling: Pooling
    max_length: int
    padding_side: PaddingSide
    mapper: MapperKind
    dim: int
    users: int
    first_user_row: int | None = None
    features: tuple[FeatureSpec, ...] = ()
    link: Link = EXPONENTIAL

    @property
    def schema_version(self) -> int:
        """The oldest schema version that can express this checkpoint: 3 for a link, 2 for features and ``kernel``."""
        if self.link != EXPONENTIAL:
            return 3
        return 2 if self.features or self.mapper == "kernel" else 1

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``filterllm.json``."""
        others = (_FEATURES, _LINK)
        fields = {key: value for key, value in asdict(self).items() if value is not None and key not in others}
        if self.features:
            fields[_FEATURES] = [step.to_json() for step in self.features]
        if self.link != EXPONENTIAL:
            fields[_LINK] = self.link.to_json()
        return {"schema_version": self.schema_version, **fields}

    @classmethod
    def from_json(cls, content: dict[str, Any], source: Path) -> CheckpointSpec:
        """Check every field of ``content`` and return the spec.

        Args:
            content: the JSON object in the file.
            source: the file, named in messages.

        Raises:
            BundleError: a newer schema version, a missing or unknown key, or a value of the wrong type or range.
        """
        _check_version(content.get("schema_version"), source)
        fields = {key: value for key, value in content.items() if key != "schema_version"}
        _check_keys(fields, source)
        for key in _STRINGS:
            if not isinstance(fields[key], str) or not fields[key]:
                raise _wrong(source, key, fields[key], "a string that is not empty")
        if fields["template"].count(PLACEHOLDER) != 1:
            raise _wrong(source, "template", fields["template"], f"the placeholder {PLACEHOLDER} exactly once")
        for key in _INTEGERS:
            _check_integer(source, key, fields[key], least=1)
        for key, choices in _CHOICES.items():
            if fields[key] not in choices:
                raise _wrong(source, key, fields[key], "one of " + ", ".join(choices))
        if _FEATURES in fields:
            fields[_FEATURES] = read_features(fields[_FEATURES], str(source))
        if fields.get(_FIRST) is not None:
            _check_extended(source, fields)
        spec = cls(**{**fields, _LINK: _read_link(fields, source)})
        if content["schema_version"] < spec.schema_version:
            expected = f"{spec.schema_version}, because of the mapper kernel or the keys {_FEATURES} or {_LINK}"
            raise _wrong(source, "schema_version", content["schema_version"], expected)
        return spec

    @classmethod
    def read(cls, path: Path) -> CheckpointSpec:
        """Read and check ``filterllm.json`` at ``path``.

        Raises:
            BundleError: the file is not JSON or breaks a rule of :meth:`from_json`.
        """
        return cls.from_json(read_object(path), path)


def _read_link(fields: dict[str, Any], source: Path) -> Link:
    return Link.read(fields[_LINK], str(source)) if _LINK in fields else EXPONENTIAL


def _check_version(version: object, source: Path) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _wrong(source, "schema_version", version, f"an integer from 1 to {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{source}: schema_version is {version}",
            expected=f"at most {SCHEMA_VERSION}, the newest that this fllm-export reads",
            fix="Upgrade fllm-export, or save the checkpoint with the older release",
        )


def _check_keys(fields: dict[str, Any], source: Path) -> None:
    known = set(CheckpointSpec.__dataclass_fields__)
    missing = sorted(known - set(fields) - _OPTIONAL)
    unknown = sorted(set(fields) - known)
    if missing:
        raise BundleError(f"{source} lacks the key {missing[0]!r}", expected="the keys " + ", ".join(sorted(known)))
    if unknown:
        raise BundleError(
            f"{source} has the unknown key {unknown[0]!r}",
            expected="only the keys schema_version, " + ", ".join(sorted(known)),
            fix="Remove the key, or correct its spelling",
        )


def _check_extended(source: Path, fields: dict[str, Any]) -> None:
    """Check what must hold where the users are rows of the base model's output embedding."""
    _check_integer(source, _FIRST, fields[_FIRST], least=0)
    if fields["mapper"] != "identity":
        raise _wrong(source, "mapper", fields["mapper"], f"identity, because {_FIRST} is given")
    if fields.get(_FEATURES):
        found = [str(step) for step in fields[_FEATURES]]
        raise _wrong(source, _FEATURES, found, f"no such key, because {_FIRST} is given")


def _check_integer(source: Path, key: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _wrong(source, key, value, f"an integer, {least} or greater")


def _wrong(source: Path, key: str, value: object, expected: str) -> BundleError:
    return BundleError(f"{source}: {key} is {value!r}", expected=expected)
