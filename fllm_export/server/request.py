"""The body of ``POST /v1/topk``: what is asked, checked before it costs anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic_core import to_json

from fllm_export import arguments
from fllm_export.errors import UsageError
from fllm_export.server.options import ServerOptions
from fllm_export.strict_json import parse

Source = Literal["texts", "token_ids", "item_vectors"]

OPTIONS = ("k", "mode", "seed", "budget_ms", "exact", "log_probs", "refine", "allow", "deny")
SOURCES = ("text", "texts", "token_ids", "item_vectors")
_FIELDS = {*OPTIONS, *SOURCES}
_KINDS = {
    "k": ("number", "an integer of 1 or more"),
    "mode": ("string", '"topk" or "sample"'),
    "seed": ("number list", "an integer, or a list of one per item"),
    "budget_ms": ("number null", "a number above 0, or null"),
    "exact": ("boolean null", "true, false or null"),
    "log_probs": ("string null", '"exact", "estimate", "none", "certified" or null'),
    "refine": ("number null", "an integer of 0 or more, or null"),
    "allow": ("list null", "a list of user ids, or null"),
    "deny": ("list null", "a list of user ids, or null"),
}
"""The kinds of JSON values that an option takes, and how a message puts it."""
_SHOWN_CHARS = 60


@dataclass(frozen=True, eq=False)
class Question:
    """A request whose form is right. Whether its values suit the table is for :class:`fllm_export.UserTable` to say.

    Attributes:
        source: what its items are.
        items: texts, token ids per item, or item vectors float32 [n, d].
        k: users per item.
        mode: ``topk`` or ``sample``.
        seed: one integer, or one per item.
        budget_ms: milliseconds from the beginning of the request, or None.
        exact: see :meth:`fllm_export.UserTable.topk`; None is the default of what is served.
        log_probs: likewise.
        refine: likewise.
        listed: user ids of the filter, int64 [n], or None for no filter.
        deny: whether the filter leaves these users out, rather than all others.
    """

    source: Source
    items: Any
    k: int
    mode: Any
    seed: int | list[int]
    budget_ms: float | None
    exact: bool | None
    log_probs: Any
    refine: int | None
    listed: npt.NDArray[np.int64] | None
    deny: bool

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def parse(cls, body: bytes, limits: ServerOptions) -> Question:
        """Read a body.

        Raises:
            UsageError: it is not such a request, or asks for more than the limits allow.
        """
        document = _document(body)
        for name, (kinds, expected) in _KINDS.items():
            if name in document and _kind(document[name]) not in kinds.split():
                raise UsageError(f"{name} is {shown(document[name])}", expected=expected)
        source, items = _items(document, limits)
        k = arguments.integer(document.get("k", 100), "k", least=1)
        refine = document.get("refine")
        again = None if refine is None else arguments.integer(refine, "refine", least=0)
        users = k * len(items) * max(1, again or 0)
        if users > limits.max_answer_users:
            raise UsageError(
                f"k times the number of items{' times refine' if again else ''} is {users}",
                expected=f"at most {limits.max_answer_users}",
                fix="Request fewer users or fewer items",
            )
        listed, deny = _filter(document)
        budget = document.get("budget_ms")
        return cls(
            source=source,
            items=items,
            k=k,
            mode=document.get("mode", "topk"),
            seed=_seed(document.get("seed", 0)),
            budget_ms=None if budget is None else arguments.milliseconds(budget, "budget_ms"),
            exact=document.get("exact"),
            log_probs=document.get("log_probs"),
            refine=again,
            listed=listed,
            deny=deny,
        )


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = parse(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON ({error})", expected="a JSON object in UTF-8") from error
    if not isinstance(document, dict):
        raise UsageError("the body is not a JSON object", expected="a JSON object")
    unknown = document.keys() - _FIELDS
    if unknown:
        raise UsageError(
            f"the field {min(unknown)!r:.60} is unknown",
            expected=f"one of {', '.join(SOURCES)}, and {', '.join(OPTIONS)}",
        )
    return document


def _items(document: dict[str, Any], limits: ServerOptions) -> tuple[Source, Any]:
    given = [name for name in SOURCES if name in document]
    if len(given) != 1:
        raise UsageError(f"the body has {len(given)} of the fields {', '.join(SOURCES)}", expected="exactly one")
    name = given[0]
    items = [document[name]] if name == "text" else document[name]
    if not isinstance(items, list):
        raise UsageError(f"{name} is {_a(items)}", expected="a list")
    if not 1 <= len(items) <= limits.max_items:
        raise UsageError(f"{name} has {len(items)} items", expected=f"1 to {limits.max_items}")
    if name == "token_ids":
        return "token_ids", items
    if name == "item_vectors":
        return "item_vectors", _vectors(items)
    _check_texts(items, limits)
    return "texts", items


def _check_texts(texts: list[Any], limits: ServerOptions) -> None:
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"text {number} (counted from 0) is {_a(text)}", expected="a string")
        if len(text) > limits.max_text_chars:
            raise UsageError(
                f"text {number} (counted from 0) has {len(text)} characters",
                expected=f"at most {limits.max_text_chars}",
                fix="Shorten it: the model reads its first tokens only",
            )


def _vectors(items: list[Any]) -> npt.NDArray[np.float32]:
    for number, vector in enumerate(items):
        # NumPy would turn strings and booleans into numbers.
        if not isinstance(vector, list) or not {*map(type, vector)} <= {int, float}:
            raise UsageError(f"item vector {number} (counted from 0) is not a list of numbers", expected="numbers")
        if len(vector) != len(items[0]):
            raise UsageError(
                f"item vector {number} (counted from 0) has {len(vector)} values", expected=f"{len(items[0])}"
            )
    try:
        with np.errstate(over="ignore"):
            z = np.array(items, np.float64).astype(np.float32)
    except OverflowError:
        z = np.full((1, 1), np.inf, np.float32)
    if not np.isfinite(z).all():
        raise UsageError("item_vectors holds a number that is not finite in float32", expected="finite numbers")
    return z


def _seed(value: Any) -> int | list[int]:
    if isinstance(value, list):
        if not {*map(type, value)} <= {int}:
            raise UsageError("seed holds something that is not an integer", expected="integers from 0 to 2^64 - 1")
        return value
    return arguments.integer(value, "seed", least=0)


def _filter(document: dict[str, Any]) -> tuple[npt.NDArray[np.int64] | None, bool]:
    allow, deny = document.get("allow"), document.get("deny")
    if allow is not None and deny is not None:
        raise UsageError("both allow and deny were given", expected="one of them")
    if allow is None and deny is None:
        return None, False
    name, listed = ("deny", deny) if allow is None else ("allow", allow)
    if not isinstance(listed, list) or not {*map(type, listed)} <= {int}:
        raise UsageError(f"{name} is not a list of integers", expected="user ids")
    if any(not 0 <= user < 1 << 63 for user in listed):
        raise UsageError(f"{name} holds a number that is not a user id", expected="integers from 0 to 2^63 - 1")
    return np.array(listed, np.int64), allow is None


def shown(value: Any) -> str:
    """Return a JSON value for a message, in the words of JSON."""
    text = to_json(value).decode()
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def _kind(value: Sequence[Any] | Any) -> str:
    names = {type(None): "null", bool: "boolean", dict: "object", str: "string", list: "list"}
    return names.get(type(value), "number")


def _a(value: Any) -> str:
    kind = _kind(value)
    return kind if kind == "null" else f"{'an' if kind == 'object' else 'a'} {kind}"
