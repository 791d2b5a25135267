"""The numbers of the rule by which users' rows are made, as files of safetensors hold them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from fllm_export.strict_json import parse


@dataclass(frozen=True)
class RuleNumbers:
    """What a rule has besides its tensors.

    Attributes:
        user_power: c, from 0 to 1.
        activity: beta; None where rows have no bias.
        strength: of a head's prior; None where the rows are in closed form.
        scale: of a head's logits; None as well.
    """

    user_power: float
    activity: float | None
    strength: float | None = None
    scale: float | None = None

    def to_text(self) -> str:
        """Return the text that a file holds."""
        numbers = {"user_power": self.user_power, "activity": self.activity}
        if self.strength is not None:
            numbers |= {"strength": self.strength, "scale": self.scale}
        return json.dumps(numbers)

    @classmethod
    def of_text(cls, text: str, *, head: bool) -> RuleNumbers:
        """Return the numbers of such a text.

        Args:
            text: of a file.
            head: whether it is of a head's users.

        Raises:
            ValueError, KeyError, TypeError: it is not such a text, or a number is out of range.
        """
        numbers = parse(text)
        power, activity = numbers["user_power"], numbers["activity"]
        if not 0 <= power <= 1 or not (activity is None or math.isfinite(activity)):
            raise ValueError("a number is out of range")
        found = float(power), None if activity is None else float(activity)
        if not head:
            return cls(*found)
        if not (0 < numbers["strength"] < math.inf and 0 < numbers["scale"] < math.inf):
            raise ValueError("strength or scale is out of range")
        return cls(*found, float(numbers["strength"]), float(numbers["scale"]))
