"""What answers at a time: an opened bundle or user table that stays as it is until another takes its place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.directory_kinds import BUNDLE
from fllm_export.errors import BundleError, UsageError
from fllm_export.runtime.places import table_of
from fllm_export.runtime.runtime import Runtime
from fllm_export.runtime.user_table import UserTable
from fllm_export.server.options import SourceOptions
from fllm_export.server.request import Question


@dataclass(frozen=True)
class Encoded:
    """Item vectors and what they took.

    Attributes:
        z: float32 [items, dim].
        timings_ms: wall time of the stages ``tokenise`` and ``encode``, as far as there were any.
    """

    z: npt.NDArray[np.float32]
    timings_ms: dict[str, float]


@dataclass(frozen=True, eq=False)
class Served:
    """An opened bundle or table. It is never opened again in place: requests that hold it end on it.

    Attributes:
        path: where it was opened.
        users: the table.
        runtime: the bundle, or None where a table alone is served.
    """

    path: Path
    users: UserTable
    runtime: Runtime | None

    @classmethod
    def open(cls, options: SourceOptions) -> Served:
        """Open a bundle or a table, and let it answer once.

        Raises:
            FllmError: it cannot be opened or does not answer.
        """
        native: dict[str, Any] = {"resident": True} if options.resident else {}
        chosen: dict[str, Any] = {
            "engine": options.engine,
            "threads": options.threads,
            "operating_point": options.operating_point,
        }
        if table_of(options.path) == options.path:
            if options.encoder is not None:
                raise UsageError(f"{options.path} is a user table, and an encoder was given", expected="no encoder")
            served = cls(options.path, UserTable.open(options.path, **chosen, **native), None)
        else:
            runtime = Runtime.open(options.path, encoder=options.encoder, **chosen, **native)
            served = cls(options.path, runtime.users, runtime)
        served.check()
        return served

    def successor(self, options: SourceOptions, opens: Opens) -> Served:
        """Open what is at a path now, and let it answer once. The encoder is shared if it is the same one.

        Args:
            options: what is served from now on.
            opens: how it is opened where nothing can be shared.

        Raises:
            FllmError: it cannot be opened or does not answer.
        """
        if self.runtime is None or not BUNDLE.found_at(options.path):
            return opens(options)
        runtime = self.runtime.successor(options.path)
        served = Served(options.path, runtime.users, runtime)
        served.check()
        return served

    def check(self) -> None:
        """Ask for one user of one item, as a request would.

        Raises:
            BundleError: the answer is not one user with a finite score.
        """
        if self.runtime is None:
            z = np.ones((1, self.users.dim), np.float32)
        else:
            z = self.runtime.encode(["a first text, before any request"])
        answer = self.users.topk(z, 1)
        if not (answer.complete[0] and answer.user_ids[0, 0] >= 0 and np.isfinite(answer.scores[0, 0])):
            raise BundleError(
                f"{self.path} answered a first query with user {answer.user_ids[0, 0]} and score {answer.scores[0, 0]}",
                expected="a user with a finite score",
                fix="Run fllm-export verify, and build it again",
            )

    def encode(self, question: Question) -> Encoded:
        """Return the item vectors of a request. Each request is encoded by itself.

        The float32 sums of an encoder depend on what else is in its batch, so a request that shared a batch with others
        would get other item vectors than alone.

        Raises:
            UsageError: texts or token ids were given and a table is served, or an item is invalid.
        """
        if question.source == "item_vectors":
            dim = question.items.shape[1]
            if dim != self.users.dim:
                raise UsageError(f"an item vector has {dim} values", expected=f"{self.users.dim}")
            return Encoded(question.items, {})
        if self.runtime is None:
            raise UsageError(
                f"the request has {question.source}, and a user table without an encoder is served",
                expected="item_vectors",
                fix="Serve a bundle to search by text",
            )
        began = time.perf_counter()
        timings = {}
        if question.source == "texts":
            tokens = self.runtime.tokenize(question.items)
            timings["tokenise"] = (time.perf_counter() - began) * 1e3
        else:
            tokens = question.items
        began = time.perf_counter()
        z = self.runtime.encode_tokens(tokens)
        timings["encode"] = (time.perf_counter() - began) * 1e3
        return Encoded(z, timings)


Opens = Callable[[SourceOptions], Served]
"""Opens a bundle or a table, and lets it answer once."""
