"""Whether a table gets what it can do without, apart from what makes it, which needs NumPy."""

from __future__ import annotations

from typing import Literal, get_args

from fllm_export.errors import UsageError

Choice = Literal["auto", "yes", "no"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


def check_choice(name: str, choice: str) -> None:
    """Refuse what is none of :data:`CHOICES`.

    Raises:
        UsageError: with ``name``, what was found and what may stand there.
    """
    if choice not in CHOICES:
        raise UsageError(f"{name} is {choice!r}", expected="one of " + ", ".join(CHOICES))
