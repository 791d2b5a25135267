"""The head forms that TensorRT plans are built of, by the codec whose rows they multiply as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PlanForm:
    """How a head plan takes an item's integers, of magnitude at most 8127: cut into 8-bit digits, none of them lost.

    Attributes:
        name: the head form, and so the stem of its file.
        digits: how many, the most significant first.
        base: of the number system; digits lie in [-base / 2, base / 2 - 1].
    """

    name: Literal["int8_limbs", "fp8_limbs"]
    digits: int
    base: int


PLAN_FORMS = {"int8": PlanForm("int8_limbs", 2, 128), "fp8": PlanForm("fp8_limbs", 3, 32)}
"""Other codecs have no plans. Of fp8: e4m3 holds every integer up to 16."""
