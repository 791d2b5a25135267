"""What goes wrong, as an answer: the status of each kind of error, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from fllm_export.errors import BudgetError, FllmError, UsageError
from fllm_export.system_errors import limit_error


class Refusal(Exception):
    """A request that the server does not answer with users.

    Args:
        status: HTTP status.
        kind: one word for programs.
        found: what was found.
        expected: what would have been accepted.
        fix: what the client can do about it.
        headers: further headers of the response.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        found: str,
        *,
        expected: str | None = None,
        fix: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.kind = kind
        self.error = FllmError(found, expected=expected, fix=fix)
        self.headers = dict(headers or {})
        super().__init__(str(self.error))


def too_large(limit: int) -> Refusal:
    """Return the refusal of a body that has more bytes than allowed."""
    return Refusal(
        413,
        "TooLarge",
        f"the body has more than {limit} bytes",
        expected=f"at most {limit}",
        fix="Send fewer items per request",
    )


def overloaded(found: str, retry_after_s: int) -> Refusal:
    """Return the refusal of a request for which there is no place in the queue."""
    return Refusal(
        429,
        "Overloaded",
        found,
        fix="Wait as Retry-After says, and send fewer requests at once",
        headers={"retry-after": str(retry_after_s)},
    )


def unavailable(found: str, retry_after_s: int = 1) -> Refusal:
    """Return the refusal of a request that the server cannot answer now."""
    return Refusal(
        503, "Unavailable", found, fix="Repeat the request later", headers={"retry-after": str(retry_after_s)}
    )


def refusal_of(error: BaseException) -> Refusal | None:
    """Return the answer that an error stands for, or None for a bug."""
    if isinstance(error, Refusal):
        return error
    found = error if isinstance(error, FllmError) else limit_error(error, "the request")
    if found is None:
        return None
    status = 400 if isinstance(found, UsageError) else 503 if isinstance(found, BudgetError) else 500
    headers = {"retry-after": "1"} if status == 503 else {}
    return Refusal(status, type(found).__name__, found.found, expected=found.expected, fix=found.fix, headers=headers)


def bug() -> Refusal:
    """Return what clients are told of an error that nobody foresaw; its traceback is in the server's log."""
    return Refusal(500, "Internal", "the server failed", fix="See the server's log")


def failure_json(refusal: Refusal) -> bytes:
    """Return the body of a refusal."""
    return to_json({"error": failure(refusal)})


def failure(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal as JSON-ready values."""
    error = refusal.error
    return {
        "kind": refusal.kind,
        "message": str(error),
        "found": error.found,
        "expected": error.expected,
        "fix": error.fix,
    }
