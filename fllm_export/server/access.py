"""Who may ask: a bearer token, or a check of the embedder's own."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from fllm_export.errors import UsageError
from fllm_export.server.failures import Refusal

TOKEN_VARIABLE = "FLLM_SERVER_TOKEN"

Authenticate = Callable[[Mapping[str, str]], bool]
"""Takes the headers of a request, names in lower case, and says whether it may go on."""

_LEAST_CHARS = 16


def read_token(path: Path | None) -> str | None:
    """Return the token in a file, or else that in the environment variable ``FLLM_SERVER_TOKEN``, or None.

    Raises:
        UsageError: the file cannot be read, or the token is shorter than 16 characters or has blanks or others than
            ASCII in it.
    """
    if path is None:
        token, where = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
    else:
        where = str(path)
        try:
            token = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read ({error})", expected="a file with a token") from error
    if token is None:
        return None
    if len(token) < _LEAST_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"the token of {where} has {len(token)} characters, or others than printable ASCII",
            expected=f"at least {_LEAST_CHARS} printable ASCII characters without blanks",
        )
    return token


def bearer(token: str) -> Authenticate:
    """Return a check for ``Authorization: Bearer TOKEN``, which takes the same time for every wrong token."""
    expected = f"bearer {token}".encode()

    def check(headers: Mapping[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(f"{scheme.lower()} {given.strip()}".encode(), expected)

    return check


def unauthorized() -> Refusal:
    """Return the refusal of a request without the right token."""
    return Refusal(
        401,
        "Unauthorized",
        "the request has no valid token",
        expected="the header Authorization: Bearer TOKEN",
        headers={"www-authenticate": "Bearer"},
    )
