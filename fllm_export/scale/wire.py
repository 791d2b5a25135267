"""What travels between a router and the process that holds a part: a JSON header and the raw bytes of arrays.

Nothing is unpickled, so that bytes of a stranger can at worst be refused. Each kind of message has its arrays, with one
dtype and one number of dimensions each; the header gives their shapes alone. An array begins at a multiple of 8 bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fllm_export import errors
from fllm_export.engines.base import Answer, Request, UserFilter
from fllm_export.errors import FllmError
from fllm_export.scale.part_host import OtherGeneration, PartRequest, Reply
from fllm_export.strict_json import parse

Array = npt.NDArray[Any]

_REQUEST = {"z": ("<f4", 2), "seeds": ("<u8", 1), "user_ids": ("<i8", 1)}
_ANSWER = {
    "ids": ("<i8", 2),
    "keys": ("<f4", 2),
    "scores": ("<f4", 2),
    "logsumexp": ("<f8", 1),
    "rows_scored": ("<i8", 1),
    "complete": ("|b1", 1),
    "exact": ("|b1", 1),
    "log_probs_exact": ("|b1", 1),
    "log_prob_error": ("<f4", 1),
    "log_probs_certified": ("|b1", 1),
}
_CANDIDATES = {**_ANSWER, "refined_scores": ("<f4", 2)}
_ANSWERS = {"answer": _ANSWER, "candidates": _CANDIDATES}
_PLAIN = tuple(field.name for field in fields(Answer) if field.name not in _CANDIDATES)
_INTEGERS = ("rows", "generation")
_SEARCH = ("k", "mode", "exact", "log_probs", "refine", "refined_scores")
_ERRORS: dict[str, type[FllmError]] = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, FllmError)
}
_ALIGNMENT = 8


class WireError(Exception):
    """Bytes from the other side are not a message. The connection is of no more use."""


class PartFailed(Exception):
    """The other side met an error that is not one of the request: a bug, or a limit of its system."""


def request_bytes(asked: PartRequest) -> tuple[bytes, bytes]:
    """Return the header and the arrays of a request."""
    search = asked.request
    chosen = search.filter
    header = {
        "generation": asked.generation,
        "budget_s": asked.budget_s,
        "filter": None if chosen is None else ("deny" if chosen.deny else "allow"),
        **{name: getattr(search, name) for name in _SEARCH},
    }
    arrays: dict[str, Array] = {
        "z": asked.z,
        "seeds": np.array(search.seeds, np.uint64),
        "user_ids": np.empty(0, np.int64) if chosen is None else chosen.user_ids,
    }
    return _message(header, arrays, _REQUEST)


def read_request(header: bytes, body: bytearray) -> PartRequest:
    """Return the request of a header and arrays.

    Raises:
        WireError: they are not those of a request.
    """
    found = _object(header)
    arrays = _arrays(found, body, _REQUEST)
    try:
        chosen = None if found["filter"] is None else UserFilter(arrays["user_ids"], found["filter"] == "deny")
        search = Request(
            seeds=tuple(arrays["seeds"].tolist()),
            deadline=None,
            filter=chosen,
            **{name: found[name] for name in _SEARCH},
        )
        return PartRequest(arrays["z"], search, found["budget_s"], found["generation"])
    except (KeyError, TypeError) as error:
        raise WireError(f"the header of a request lacks {error}") from error


def reply_bytes(reply: Reply | Exception) -> tuple[bytes, bytes]:
    """Return the header and the arrays of a reply."""
    if isinstance(reply, Answer):
        kind = "answer" if reply.refined_scores is None else "candidates"
        plain, schema = {name: getattr(reply, name) for name in _PLAIN}, _ANSWERS[kind]
        return _message({"kind": kind, **plain}, {name: getattr(reply, name) for name in schema}, schema)
    if isinstance(reply, OtherGeneration):
        return _message({"kind": "generation", "found": reply.found}, {}, {})
    if isinstance(reply, FllmError):
        name = next(each.__name__ for each in type(reply).__mro__ if each.__name__ in _ERRORS)
        told = {"found": reply.found, "expected": reply.expected, "fix": reply.fix}
        return _message({"kind": "error", "name": name, **told}, {}, {})
    return _message({"kind": "failed", "text": f"{type(reply).__name__}: {reply}"[:1000]}, {}, {})


def read_reply(header: bytes, body: bytearray) -> Reply:
    """Return the reply of a header and arrays.

    Raises:
        PartFailed: the other side failed.
        WireError: they are not those of a reply.
    """
    found = _object(header)
    try:
        if found["kind"] in ("answer", "candidates"):
            return _answer(found, _arrays(found, body, _ANSWERS[found["kind"]]))
        if found["kind"] == "generation":
            return OtherGeneration(found["found"])
        if found["kind"] == "error":
            return _ERRORS[found["name"]](found["found"], expected=found["expected"], fix=found["fix"])
        if found["kind"] == "failed":
            raise PartFailed(found["text"])
    except (KeyError, TypeError, AttributeError) as error:
        raise WireError(f"the header of a reply lacks {error}") from error
    raise WireError(f"there is no reply of the kind {found['kind']!r}")


def _answer(header: dict[str, Any], arrays: dict[str, Array]) -> Answer:
    """Return the answer of a message whose arrays are those of its kind."""
    plain = {name: header[name] for name in _PLAIN}
    for name, value in plain.items():
        if type(value) is not int and (name in _INTEGERS or type(value) is not float):
            raise WireError(f"{name} of an answer is {value!r}"[:200])
    shape = arrays["ids"].shape
    for name, array in arrays.items():
        if array.shape != shape[: array.ndim]:
            raise WireError(f"the shape of {name} is {array.shape}, and that of ids is {shape}")
    return Answer(**cast(Any, arrays), **plain)


def _message(
    header: dict[str, Any], arrays: dict[str, Array], schema: dict[str, tuple[str, int]]
) -> tuple[bytes, bytes]:
    shapes, pieces = {}, []
    for name, (dtype, _) in schema.items():
        array = np.ascontiguousarray(arrays[name], dtype)
        shapes[name] = array.shape
        pieces.append(array.tobytes())
        pieces.append(bytes(-array.nbytes % _ALIGNMENT))
    return json.dumps({**header, "shapes": shapes}).encode(), b"".join(pieces)


def _object(header: bytes) -> dict[str, Any]:
    try:
        found = parse(header)
    except ValueError as error:
        raise WireError(f"the header is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise WireError("the header is not a JSON object")
    return found


def _arrays(header: dict[str, Any], body: bytearray, schema: dict[str, tuple[str, int]]) -> dict[str, Array]:
    """Return the arrays of a message as views of its bytes."""
    shapes, start, found = header.get("shapes"), 0, {}
    if not isinstance(shapes, dict) or shapes.keys() != schema.keys():
        raise WireError("the header does not have the shapes of the arrays of its message")
    for name, (dtype, dimensions) in schema.items():
        shape = shapes[name]
        if not isinstance(shape, list) or len(shape) != dimensions or not all(type(n) is int and n >= 0 for n in shape):
            raise WireError(f"the shape of {name} is not {dimensions} integers")
        values, size = math.prod(shape), np.dtype(dtype).itemsize
        if start + values * size > len(body):
            raise WireError(f"the message ends before {name}")
        found[name] = np.frombuffer(body, dtype, values, start).reshape(shape)
        start += values * size + -values * size % _ALIGNMENT
    if start != len(body):
        raise WireError(f"the message has {len(body)} bytes of arrays, and its header describes {start}")
    return found
