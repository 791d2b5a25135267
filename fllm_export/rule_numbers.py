"""The two numbers of the rule by which rows in closed form are made, as files of safetensors hold them."""

from __future__ import annotations

import json
import math

from fllm_export.strict_json import parse


def write_numbers(user_power: float, activity: float | None) -> str:
    """Return the text of c and of beta, which is None where rows have no bias."""
    return json.dumps({"user_power": user_power, "activity": activity})


def read_numbers(text: str) -> tuple[float, float | None]:
    """Return c and beta of such a text.

    Raises:
        ValueError, KeyError, TypeError: it is not such a text, or a number is out of range.
    """
    numbers = parse(text)
    power, activity = numbers["user_power"], numbers["activity"]
    if not 0 <= power <= 1 or not (activity is None or math.isfinite(activity)):
        raise ValueError("a number is out of range")
    return float(power), None if activity is None else float(activity)
