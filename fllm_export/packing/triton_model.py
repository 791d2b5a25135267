"""The model of a bundle for Triton's Python backend: ``pack --triton`` copies this file into the model repository.

It stands alone: apart from the backend's own module it needs fllm-export, installed in the backend's Python.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from fllm_export import BudgetError, FllmError, Runtime, TopK, UsageError

OPTIONS = ("k", "mode", "seed", "budget_ms", "exact", "log_probs", "refine")


class Question(NamedTuple):
    """One request: its item vectors, float32 [n, dim], and how to search.

    Attributes:
        place: of the request among those that came together.
        z: item vectors.
        options: keyword arguments of ``UserTable.topk``.
    """

    place: int
    z: npt.NDArray[np.float32]
    options: dict[str, Any]

    def shared(self) -> str:
        """Return what requests must have in common to be searched in one pass.

        A budget belongs to one request, and answers without ``exact`` depend on who is in a pass.
        """
        alone = self.options.get("budget_ms") is not None or self.options.get("exact") is False
        alone |= "seed" in self.options
        return str(self.place) if alone else json.dumps(self.options, sort_keys=True) + "shared"


class TritonPythonModel:
    """What the backend calls; one instance serves all requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle beside this file."""
        given = {
            name: entry.get("string_value", "")
            for name, entry in json.loads(args["model_config"])["parameters"].items()
        }
        threads = given.get("threads") or None
        self._runtime = Runtime.open(
            Path(args["model_repository"]) / args["model_version"] / "bundle",
            engine=given.get("engine") or None,
            encoder=given.get("encoder") or None,
            threads=None if threads is None else int(threads),
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, in their order; a request that cannot be answered gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[str, list[Question]] = {}
        for place, request in enumerate(requests):
            try:
                question = Question(place, self._item_vectors(request), _options(request))
            except (FllmError, ValueError) as error:
                responses[place] = _failure(error)
            else:
                groups.setdefault(question.shared(), []).append(question)
        for group in groups.values():
            for question, response in zip(group, self._searched(group), strict=True):
                responses[question.place] = response
        return responses

    def finalize(self) -> None:
        """Let go of the bundle."""
        del self._runtime

    def _item_vectors(self, request: Any) -> npt.NDArray[np.float32]:
        """Return the item vectors of a request. Each is encoded by itself: an encoder's sums depend on its batch."""
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT")
        vectors = pb_utils.get_input_tensor_by_name(request, "ITEM_VECTOR")
        if (texts is None) == (vectors is None):
            raise UsageError("both or none of TEXT and ITEM_VECTOR are given", expected="exactly one of them")
        if texts is None:
            z: npt.NDArray[np.float32] = vectors.as_numpy()
            if z.shape[1:] != (self._runtime.users.dim,):
                raise UsageError(f"ITEM_VECTOR is {list(z.shape)}", expected=f"[items, {self._runtime.users.dim}]")
            return z
        return self._runtime.encode([text.decode("utf-8") for text in texts.as_numpy().reshape(-1)])

    def _searched(self, group: list[Question]) -> list[Any]:
        try:
            answer = self._runtime.users.topk(np.concatenate([one.z for one in group]), **group[0].options)
        except FllmError as error:
            # A fault of one request, such as a number that is not finite, is not the others'.
            return [_failure(error)] if len(group) == 1 else [part for one in group for part in self._searched([one])]
        ends = np.cumsum([len(one.z) for one in group])
        return [_response(answer, slice(end - len(one.z), end)) for one, end in zip(group, ends, strict=True)]


def _options(request: Any) -> dict[str, Any]:
    text = request.parameters()
    options = json.loads(text) if text else {}
    unknown = options.keys() - {*OPTIONS}
    if unknown:
        raise UsageError(f"the parameter {min(unknown)!r:.60} is unknown", expected=f"one of {', '.join(OPTIONS)}")
    return dict(options)


def _response(answer: TopK, items: slice) -> Any:
    count = len(answer.user_ids[items])
    columns = {
        "USER_IDS": answer.user_ids[items],
        "SCORES": answer.scores[items],
        "LOG_PROBS": answer.log_probs[items],
        "LOGSUMEXP": answer.logsumexp[items, None],
        "COVERAGE": answer.coverage[items, None],
        "COMPLETE": answer.complete[items, None],
        "EXACT": answer.exact[items, None],
        "GENERATION": np.full((count, 1), answer.generation, np.int64),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in columns.items()])


def _failure(error: Exception) -> Any:
    kinds = pb_utils.TritonError
    if isinstance(error, FllmError):
        message = str(error)
        usage, busy = isinstance(error, UsageError), isinstance(error, BudgetError)
        code = kinds.INVALID_ARG if usage else kinds.UNAVAILABLE if busy else kinds.INTERNAL
    else:
        message, code = f"the request cannot be read ({error})", kinds.INVALID_ARG
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))
