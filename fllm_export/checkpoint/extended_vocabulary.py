"""User rows that are part of the base model: rows V to V + N - 1 of a causal LM's output embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save

from fllm_export.checkpoint.adapter import stored_whole
from fllm_export.checkpoint.base import BaseModel
from fllm_export.checkpoint.row_sources import StoredRows
from fllm_export.checkpoint.tensors import IdArray, StoredTensor, open_tensors
from fllm_export.checkpoint.user_files import IDS
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import BundleError
from fllm_export.files import publish

IDS_FILE = "ids.safetensors"

_OUTPUTS = ("lm_head", "embed_out", "output")
_INPUTS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")


def vocabulary_rows(
    base: BaseModel, adapter: Path | None, first: int, users: int | None, ids: IdArray | None
) -> UserRows:
    """Return rows ``first`` to ``first + users - 1`` of the output embedding, unread.

    A matrix that the adapter stores whole takes the place of the base model's; what LoRA adds is not in here.

    Args:
        base: the causal LM.
        adapter: directory of the PEFT adapter, or None.
        first: the row of user number 0.
        users: number of users, or None for all rows from ``first`` on.
        ids: int64 [users], or None for 0 to users - 1.

    Raises:
        BundleError: there is no output embedding, or it has too few rows.
    """
    rows, bias = output_embedding(base, adapter)
    rows.expect((None, None))
    count = rows.shape[0] - first if users is None else users
    if first < 0 or count < 1 or first + count > rows.shape[0]:
        wanted = "at least one user" if users is None else f"{users} users"
        raise BundleError(
            f"{rows} has {rows.shape[0]} rows",
            expected=f"more than {max(first, 0) + max(count, 1) - 1}: {wanted} from row {first} on",
            fix="Correct first_user_row and users; first_user_row is the size of the language's own vocabulary",
        )
    if bias is not None:
        bias.expect((rows.shape[0],))
    return UserRows(
        [StoredRows(rows, first, count)],
        ids=ids,
        bias=None if bias is None else bias.read(first, count),
        source=str(rows.file),
    )


def output_embedding(base: BaseModel, adapter: Path | None) -> tuple[StoredTensor, StoredTensor | None]:
    """Return the tensor whose rows score the vocabulary, and its bias if it has one.

    It is the LM head, or the input embedding when the two are tied.

    Raises:
        BundleError: the model has neither under a known name.
    """
    tensors = base.tensors()

    def latest(name: str) -> StoredTensor | None:
        whole = None if adapter is None else stored_whole(adapter, name)
        return tensors.get(name) if whole is None else whole

    for kinds in (_OUTPUTS, _INPUTS):
        for name in sorted(tensors):
            module, _, last = name.rpartition(".")
            if last == "weight" and module.split(".")[-1] in kinds and (rows := latest(name)) is not None:
                return rows, latest(f"{module}.bias")
    raise BundleError(
        f"{base.path} has no output embedding",
        expected="a causal LM with one of the tensors " + ", ".join(f"{name}.weight" for name in _OUTPUTS + _INPUTS),
    )


def read_ids(path: Path) -> IdArray | None:
    """Return the user ids of an extended vocabulary, int64 [N], or None when the file does not exist.

    Raises:
        BundleError: the file is damaged or does not hold the tensor ``ids``.
    """
    if not path.exists():
        return None
    tensors = open_tensors(path)
    if set(tensors) != {IDS}:
        raise BundleError(f"{path} holds the tensors {', '.join(sorted(tensors)) or 'none'}", expected=f"{IDS!r} only")
    tensors[IDS].expect((None,), ids=True)
    return tensors[IDS].read_ids()


def write_ids(path: Path, ids: IdArray) -> None:
    """Write the user ids of an extended vocabulary."""
    with publish(path) as file:
        file.write(save({IDS: np.ascontiguousarray(ids)}))
