"""A trained model as evaluation sees it: a checkpoint before export, or the bundle made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.directory_kinds import BUNDLE, CHECKPOINT, kind_of
from fllm_export.errors import HardwareError, UsageError
from fllm_export.item_texts import as_texts
from fllm_export.link import Link
from fllm_export.progress import Progress, silent

Rows = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_ENCODE_ITEMS = 64


class Ranker(Protocol):
    """Item texts to vectors, vectors to users."""

    @property
    def link(self) -> Link:
        """How scores become probabilities."""
        ...

    def encode(self, texts: Sequence[str]) -> Rows:
        """Return item vectors z, float32 [B, d]."""
        ...

    def topk(self, z: Rows, k: int) -> Ids:
        """Return the ids of the best ``k`` users of each item, best first, int64 [B, k]."""
        ...

    def likely_users(self, z: Rows, k: int) -> tuple[Ids, Rows]:
        """Return the best ``k`` users of each item, int64 [B, k], and their log-probabilities, float32 [B, k]."""
        ...

    def rows(self) -> Iterator[tuple[Ids, Rows, Rows | None]]:
        """Yield user ids int64 [n], their rows float32 [n, d], and their biases float32 [n] or None."""
        ...


class CheckpointRanker:
    """The checkpoint in float32, its adapter not merged."""

    def __init__(self, directory: Path) -> None:
        from fllm_export.checkpoint.checkpoint import Checkpoint

        try:
            from fllm_export.checkpoint.adapted import encode, load_unmerged
        except ImportError as error:
            raise HardwareError(
                f"a checkpoint needs torch, transformers and peft: {error}",
                fix="Run pip install 'fllm-export[train]', or evaluate a bundle",
            ) from error
        checkpoint = Checkpoint.load(directory)
        self.link = checkpoint.spec.link
        self._model = load_unmerged(checkpoint)
        self._prompt, self._tokenizer, self._users = checkpoint.prompt(), checkpoint.tokenizer(), self._model.users
        self._encode = partial(encode, self._model.encoder, self._prompt)

    def encode(self, texts: Sequence[str]) -> Rows:
        """Return item vectors z, float32 [B, d]."""
        return self._encode(self._prompt.tokenize(self._tokenizer, texts))

    def topk(self, z: Rows, k: int) -> Ids:
        """Return the ids of the best ``k`` users of each item: score descending, then id ascending."""
        return self.likely_users(z, k)[0]

    def likely_users(self, z: Rows, k: int) -> tuple[Ids, Rows]:
        """Return the users of :meth:`topk` and their log-probabilities, int64 [B, k] and float32 [B, k]."""
        best = np.empty((len(z), 0), np.int64)
        scores = np.empty((len(z), 0), np.float32)
        normaliser = np.full(len(z), -np.inf)
        for ids, rows, bias in self._users.labelled_chunks():
            chunk = z @ rows.T
            if bias is not None:
                chunk += bias
            m, total = self.link.log_sums(chunk)
            normaliser = np.logaddexp(normaliser, m + np.log(total))
            scores = np.concatenate([scores, chunk], 1)
            best = np.concatenate([best, np.broadcast_to(ids, chunk.shape)], 1)
            order = np.lexsort((best, -scores))[:, :k]
            scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
        return best, (self.link.logits(scores) - normaliser[:, None]).astype(np.float32)

    def rows(self) -> Iterator[tuple[Ids, Rows, Rows | None]]:
        """Yield user ids int64 [n], their rows float32 [n, d], and their biases float32 [n] or None."""
        return self._users.labelled_chunks()

    def base_vectors(self, texts: Sequence[str]) -> Rows:
        """Return what the frozen base encoder makes of texts, pooled as the checkpoint says, float32 [B, h]."""
        return self._model.base_vectors(texts)


class BundleRanker:
    """The bundle as a server would run it: exported encoder, quantised user table."""

    def __init__(self, directory: Path) -> None:
        from fllm_export.runtime.runtime import Runtime

        self._runtime = Runtime.open(directory)
        self.link = self._runtime.users.link

    def encode(self, texts: Sequence[str]) -> Rows:
        """Return item vectors z, float32 [B, d]."""
        return self._runtime.encode(texts)

    def topk(self, z: Rows, k: int) -> Ids:
        """Return the ids of the best ``k`` users of each item, best first, int64 [B, k]."""
        return self._runtime.users.topk(z, k).user_ids

    def likely_users(self, z: Rows, k: int) -> tuple[Ids, Rows]:
        """Return the best ``k`` users of each item, int64 [B, k], and their log-probabilities, float32 [B, k]."""
        answer = self._runtime.users.topk(z, k)
        return answer.user_ids, answer.log_probs

    def rows(self) -> Iterator[tuple[Ids, Rows, Rows | None]]:
        """Yield user ids int64 [n], the rows that their codes stand for, float32 [n, d], and their biases or None."""
        return self._runtime.users.labelled_chunks()


def rows_of_users(ranker: Ranker, user_ids: Ids) -> tuple[Rows, Rows | None]:
    """Return the model's rows of some users, float32 [U, d], and their biases, float32 [U] or None.

    Args:
        ranker: the model.
        user_ids: ascending, int64 [U].

    Raises:
        UsageError: the model's users are others.
    """
    chunks = list(ranker.rows())
    ids, rows = np.concatenate([c[0] for c in chunks]), np.concatenate([c[1] for c in chunks])
    order = np.argsort(ids)
    if not np.array_equal(ids[order], user_ids):
        raise UsageError(
            f"the model has {len(ids)} users and the data set {len(user_ids)}, or their ids differ",
            expected="the users of the data set that the model was trained on",
        )
    biases = [c[2] for c in chunks if c[2] is not None]
    return rows[order], np.concatenate(biases)[order] if biases else None


def open_ranker(directory: str | Path) -> Ranker:
    """Open a checkpoint directory (``filterllm.json``) or a bundle directory (``manifest.json``).

    Raises:
        UsageError: the directory is neither.
        BundleError: it is damaged.
        HardwareError: what it needs is not installed.
    """
    directory = arguments.path(directory, "directory")
    kind = kind_of(directory)
    if kind is CHECKPOINT:
        return CheckpointRanker(directory)
    if kind is BUNDLE:
        return BundleRanker(directory)
    raise UsageError(
        f"{directory} holds neither {CHECKPOINT.marker} nor {BUNDLE.marker}", expected="a checkpoint or a bundle"
    )


def encode_items(ranker: Ranker, texts: Sequence[str], progress: Progress = silent) -> Rows:
    """Return the vectors of many items, float32 [n, d]; texts of similar length go together.

    Raises:
        UsageError: ``texts`` is not a list, Series or 1-d array of at least one text.
    """
    return encode_texts(ranker.encode, texts, "encoding items", progress)


def encode_texts(
    encode: Callable[[Sequence[str]], Rows], texts: Sequence[str], stage: str, progress: Progress = silent
) -> Rows:
    """Return what ``encode`` makes of many texts, float32 [n, d]; texts of similar length go together.

    Args:
        encode: texts to vectors, float32 [B, d].
        texts: at least one.
        stage: what ``progress`` is told.
        progress: counts texts.

    Raises:
        UsageError: ``texts`` is not a list, Series or 1-d array of at least one text.
    """
    texts = as_texts(texts, "texts")
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = []
    for start in range(0, len(texts), _ENCODE_ITEMS):
        parts.append(encode([texts[i] for i in by_length[start : start + _ENCODE_ITEMS]]))
        progress(stage, min(start + _ENCODE_ITEMS, len(texts)), len(texts))
    vectors = np.empty((len(texts), parts[0].shape[1]), np.float32)
    vectors[by_length] = np.concatenate(parts)
    return vectors
