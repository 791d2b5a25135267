"""The checkpoint: a directory with everything that training hands over, read lazily and checked."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy.typing as npt

from fllm_export import arguments
from fllm_export.checkpoint.adapter import ADAPTER_FILES, check_adapter
from fllm_export.checkpoint.base import BaseModel, resolve_base
from fllm_export.checkpoint.extended_vocabulary import IDS_FILE, read_ids, vocabulary_rows, write_ids
from fllm_export.checkpoint.features import Features
from fllm_export.checkpoint.head import HEAD_FILE, read_head, write_head
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.spec import MAPPER_KINDS, SPEC_FILE, CheckpointSpec, MapperKind
from fllm_export.checkpoint.user_files import USER_FILES
from fllm_export.checkpoint.user_rule import RULE_FILE, UserRule
from fllm_export.checkpoint.users import UserRows
from fllm_export.directory_kinds import CHECKPOINT, refuse_other_kind
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish_copy, publish_json, sha256_file
from fllm_export.progress import Progress, silent
from fllm_export.prompt import PADDING_SIDES, PaddingSide, Prompt
from fllm_export.system_errors import check_place

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BASE_FOLDER, ADAPTER_FOLDER = "base", "adapter"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained FilterLLM before the adapter is merged.

    Attributes:
        spec: the declared facts.
        base: directory of the HF base model, with config, tokenizer and safetensors weights.
        adapter: directory of a PEFT adapter over the base model or over the whole FilterLLM, or None.
        mapper: from features to item vector.
        users: the user rows, read from disk as they are asked for. What an adapter adds to them is not in here:
            :func:`fllm_export.checkpoint.merge.merge` folds it in.
        features: the steps between pooling and mapper; none for most models.
        rule: what rows in closed form were made of, or None: then users cannot be learned.

    Raises:
        BundleError: the parts do not fit together.
        UsageError: the template has no placeholder, or ``max_length`` is not positive.
    """

    spec: CheckpointSpec
    base: Path
    adapter: Path | None
    mapper: Mapper
    users: UserRows
    features: Features = field(default_factory=Features)
    rule: UserRule | None = None

    def __post_init__(self) -> None:
        Prompt(self.spec.template, self.spec.max_length, self.spec.padding_side, pad_id=0)
        CheckpointSpec.from_json(self.spec.to_json(), Path(SPEC_FILE))
        self._check_features()
        self._check_mapper(self.base_model.hidden)
        if self.adapter is not None:
            check_adapter(self.adapter)
        found = (self.users.rows, self.users.dim)
        if found != (self.spec.users, self.spec.dim):
            raise BundleError(
                f"the user rows have the shape {list(found)}",
                expected=f"[{self.spec.users}, {self.spec.dim}], the users and dim of {SPEC_FILE}",
            )

    @classmethod
    def load(cls, directory: str | Path) -> Checkpoint:
        """Open a checkpoint directory; user rows and base weights stay on disk.

        Raises:
            BundleError: a file or tensor is missing, damaged, of an unknown version, or does not fit.
        """
        directory = arguments.path(directory, "directory")
        path = directory / SPEC_FILE
        if not path.is_file():
            refuse_other_kind(directory, CHECKPOINT)
            raise BundleError(
                f"{path} does not exist",
                expected="a checkpoint directory",
                fix="Name the directory that Checkpoint.save wrote; an interrupted save leaves no " + SPEC_FILE,
            )
        spec = CheckpointSpec.read(path)
        base = resolve_base(spec.base_model, directory, str(path))
        adapter = directory / ADAPTER_FOLDER if (directory / ADAPTER_FOLDER).exists() else None
        if spec.first_user_row is None:
            users = UserRows.open(directory)
        else:
            ids = read_ids(directory / IDS_FILE)
            users = vocabulary_rows(BaseModel.check(base), adapter, spec.first_user_row, spec.users, ids)
        features, mapper = read_head(directory / HEAD_FILE, spec)
        rule = None
        if (directory / RULE_FILE).exists():
            rule = UserRule.load(directory / RULE_FILE, users.rows, users.dim, bias=users.bias is not None)
        return cls(spec, base, adapter, mapper, users, features, rule)

    @classmethod
    def from_filterllm(
        cls,
        base_model: str | Path,
        adapter: str | Path | None,
        custom_weights: str | Path,
        *,
        template: str,
        max_length: int = 512,
        mapper: MapperKind = "linear_relu",
        padding_side: PaddingSide = "left",
        ids: npt.ArrayLike | None = None,
    ) -> Checkpoint:
        """Import the files that the official FilterLLM code writes.

        Args:
            base_model: directory of the base LLM, or its id in the local Hugging Face cache.
            adapter: directory of the PEFT adapter, or None for a fully fine-tuned base model.
            custom_weights: ``custom_weights.pt`` with ``mapper.*`` and ``user_embeddings.weight``.
            template: the prompt with the placeholder ``{text}``; the official files do not hold it.
            max_length: tokens at most.
            mapper: the mapper's kind; ``identity`` leaves the file's mapper out, as some evaluations do.
            padding_side: of the tokenizer in training.
            ids: the user id of each row, integers [N]; 0 to N - 1 when not given.

        Raises:
            BundleError: a file is missing or damaged, or would run code when opened.
            UsageError: an argument is of another type or out of range; ids are never converted.
            HardwareError: torch is not installed.
        """
        from fllm_export.checkpoint.official import read_parts

        base = resolve_base(str(arguments.path(base_model, "base_model")), Path.cwd(), "the argument base_model")
        kind = arguments.one_of(mapper, "mapper", MAPPER_KINDS)
        parts = read_parts(arguments.path(custom_weights, "custom_weights"), kind, ids)
        spec = CheckpointSpec(
            base_model=str(base.resolve()),
            template=template,
            pooling="last",
            max_length=arguments.integer(max_length, "max_length", least=1),
            padding_side=arguments.one_of(padding_side, "padding_side", PADDING_SIDES),
            mapper=kind,
            dim=parts.users.dim,
            users=parts.users.rows,
        )
        folder = None if adapter is None else arguments.path(adapter, "adapter")
        return cls(spec, base, folder, parts.mapper, parts.users)

    @classmethod
    def from_extended_vocabulary(
        cls,
        model_dir: str | Path,
        *,
        first_user_row: int,
        users: int | None = None,
        adapter: str | Path | None = None,
        template: str,
        max_length: int = 512,
        padding_side: PaddingSide = "left",
        ids: npt.ArrayLike | None = None,
    ) -> Checkpoint:
        """Import a causal LM whose output embedding has a row for every user after the words of its language.

        Args:
            model_dir: directory of the model, or its id in the local Hugging Face cache.
            first_user_row: the output row of user number 0 (the size of the language's vocabulary).
            users: number of users; all rows from ``first_user_row`` on when not given.
            adapter: directory of a PEFT adapter over the model, or None.
            template: the prompt with the placeholder ``{text}``.
            max_length: tokens at most.
            padding_side: of the tokenizer in training.
            ids: the user id of each row, integers [N]; 0 to N - 1 when not given.

        Raises:
            BundleError: a file is missing or damaged, or the output embedding has too few rows.
            UsageError: an argument is of another type or out of range; ids are never converted.
        """
        first_user_row = arguments.integer(first_user_row, "first_user_row", least=0)
        count = None if users is None else arguments.integer(users, "users", least=1)
        base = resolve_base(str(arguments.path(model_dir, "model_dir")), Path.cwd(), "the argument model_dir")
        folder = None if adapter is None else arguments.path(adapter, "adapter")
        model = BaseModel.check(base)
        rows = vocabulary_rows(model, folder, first_user_row, count, None)
        if ids is not None:
            chosen = arguments.unique_ids(ids, "ids", rows.rows)
            rows = vocabulary_rows(model, folder, first_user_row, rows.rows, chosen)
        spec = CheckpointSpec(
            base_model=str(base.resolve()),
            template=template,
            pooling="last",
            max_length=arguments.integer(max_length, "max_length", least=1),
            padding_side=arguments.one_of(padding_side, "padding_side", PADDING_SIDES),
            mapper="identity",
            dim=rows.dim,
            users=rows.rows,
            first_user_row=first_user_row,
        )
        return cls(spec, base, folder, Mapper("identity"), rows)

    @classmethod
    def from_sentence_transformer(
        cls,
        directory: str | Path,
        *,
        users: npt.ArrayLike | str | Path,
        ids: npt.ArrayLike | str | Path | None = None,
        bias: npt.ArrayLike | None = None,
        template: str | None = None,
        max_length: int | None = None,
    ) -> Checkpoint:
        """Import the item tower of a two-tower model, with the vectors of its users.

        The score of a user is the inner product of the text's vector, as ``SentenceTransformer.encode`` returns it,
        and the user's row.

        Args:
            directory: what ``SentenceTransformer.save`` wrote, or the model's id in the local Hugging Face cache.
            users: floats [N, d], d being the dimensions of a text's vector; or a file of them (``.npy``, ``.parquet``,
                ``.safetensors`` or ``.fbin``), which stays on disk.
            ids: the user id of each row, integers [N], or a file of them; when not given, those in the file of
                ``users``, or else 0 to N - 1.
            bias: added to each user's score, numbers [N]; when not given, those in the file of ``users``, or else none.
            template: the prompt with the placeholder ``{text}``; when not given, the model's default prompt before
                the text, or the bare text.
            max_length: tokens at most; the model's own limit when not given.

        Raises:
            BundleError: a file is missing or damaged, or a module or setting of the model is not supported.
            UsageError: an argument is of another type or out of range, or the rows have other dimensions.
            HardwareError: a Dense module's weights are a torch file and torch is not installed.
        """
        from fllm_export.checkpoint.sentence_modules import SentenceModules
        from fllm_export.checkpoint.vector_files import user_rows

        base = resolve_base(str(arguments.path(directory, "directory")), Path.cwd(), "the argument directory")
        modules, rows = SentenceModules.read(base), user_rows(users, ids, bias)
        if rows.dim != modules.dim:
            raise UsageError(
                f"the user rows have {rows.dim} dimensions",
                expected=f"{modules.dim}, those of a text's vector in {base}",
            )
        length = modules.texts.max_length if max_length is None else max_length
        if length is None:
            raise UsageError(f"{base} does not limit the length of texts", expected="the argument max_length")
        spec = CheckpointSpec(
            base_model=str(modules.transformer.resolve()),
            template=modules.texts.template if template is None else template,
            pooling=modules.pooling,
            max_length=arguments.integer(length, "max_length", least=1),
            padding_side=modules.texts.padding_side,
            mapper="identity",
            dim=rows.dim,
            users=rows.rows,
            features=modules.features.specs,
        )
        return cls(spec, modules.transformer, None, Mapper("identity"), rows, modules.features)

    @cached_property
    def base_model(self) -> BaseModel:
        """The base model's directory, checked once."""
        return BaseModel.check(self.base)

    def prompt(self) -> Prompt:
        """Return the template with its truncation and padding rules."""
        spec = self.spec
        return Prompt(spec.template, spec.max_length, spec.padding_side, self.base_model.pad_id)

    def tokenizer(self) -> Tokenizer:
        """Return the base model's tokenizer with its own padding and truncation switched off."""
        return self.base_model.tokenizer()

    def fingerprint(self) -> str:
        """Return one SHA-256 over everything that decides an answer; it reads every user row once.

        Where the base model lies, and how the user rows are split into files, do not change it.
        """
        digest = hashlib.sha256()
        facts = {**self.spec.to_json(), "base_model": None}
        digest.update(json.dumps(facts, sort_keys=True).encode())
        adapter = [] if self.adapter is None else [self.adapter / name for name in ADAPTER_FILES]
        for file in [*self.base_model.files(), *adapter]:
            digest.update(f"{file.name}\0{sha256_file(file)}\n".encode())
        features = {f"features.{name}": array for name, array in self.features.tensors.items()}
        for name, array in sorted({**self.mapper.weights, **features}.items()):
            digest.update(f"{name}\0{array.shape}\n".encode() + array.tobytes())
        for chunk in self.users.chunks():
            digest.update(chunk.tobytes())
        for name, values in (("ids", self.users.ids), ("bias", self.users.bias)):
            digest.update(f"{name}\0".encode() + (b"" if values is None else values.tobytes()))
        if self.rule is not None:
            digest.update(self.rule.fingerprint().encode())
        return digest.hexdigest()

    def save(self, directory: str | Path, progress: Progress = silent) -> None:
        """Write a self-contained checkpoint, base model included; ``filterllm.json`` last.

        Files of other names in the directory are left alone. When anything fails, what was written is removed.

        Raises:
            UsageError: the directory already holds a checkpoint or a part of one, or cannot be written.
        """
        directory = arguments.path(directory, "directory")
        check_place(directory, "directory")
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"{directory} is a file", expected="a directory to write the checkpoint to")
        taken = _entries(directory)
        if taken:
            raise UsageError(
                f"{taken[0]} exists",
                expected="a directory without a checkpoint",
                fix="Choose another directory, or delete the old checkpoint first",
            )
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self._write(directory, progress)
        except BaseException:
            for entry in _entries(directory):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            raise

    def _write(self, directory: Path, progress: Progress) -> None:
        files = self.base_model.files()
        for done, file in enumerate(files, 1):
            publish_copy(file, directory / BASE_FOLDER / file.name)
            progress("base model files", done, len(files))
        if self.adapter is not None:
            for name in ADAPTER_FILES:
                publish_copy(self.adapter / name, directory / ADAPTER_FOLDER / name)
        write_head(directory / HEAD_FILE, self.features, self.mapper)
        if self.spec.first_user_row is None:
            self.users.write(directory, progress)
        elif self.users.ids is not None:
            write_ids(directory / IDS_FILE, self.users.ids)
        if self.rule is not None:
            self.rule.write(directory / RULE_FILE)
        publish_json(directory / SPEC_FILE, replace(self.spec, base_model=BASE_FOLDER).to_json())

    def _check_mapper(self, hidden: int | None) -> None:
        spec, mapper = self.spec, self.mapper
        if mapper.kind != spec.mapper:
            raise BundleError(f"the mapper's kind is {mapper.kind}", expected=f"{spec.mapper}, as {SPEC_FILE} says")
        if mapper.dim not in (None, spec.dim):
            raise BundleError(
                f"{mapper.source}: the mapper's output has {mapper.dim} dimensions",
                expected=f"{spec.dim}, the dim of {SPEC_FILE}",
            )
        given = spec.dim if mapper.hidden is None else mapper.hidden
        width = self.features.width(hidden)
        if width not in (None, given):
            made = f"the hidden size of the base model in {self.base}"
            if width != hidden:
                made = "the dimensions that the features make"
            raise BundleError(f"{mapper.source}: the mapper takes {given} dimensions", expected=f"{width}, {made}")

    def _check_features(self) -> None:
        if self.features.specs != self.spec.features:
            found, wanted = (
                ", ".join(map(str, steps)) or "none" for steps in (self.features.specs, self.spec.features)
            )
            raise BundleError(f"the features are {found}", expected=f"{wanted}, as {SPEC_FILE} says")


def _entries(directory: Path) -> list[Path]:
    names = (SPEC_FILE, BASE_FOLDER, ADAPTER_FOLDER, HEAD_FILE, IDS_FILE, RULE_FILE)
    return [path for name in names if (path := directory / name).exists()] + sorted(directory.glob(USER_FILES))
