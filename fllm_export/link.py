"""The link: how the scores of users become probabilities. This is the definition.

    p(u | item) = w(s_u) / (sum of w(s_v) over all users v)

    exponential   w(s) = exp(s)
    power         w(s) = 1 + min(max(s, 0), 2^30)^g, with an integer g from 1 to 4

Both never decrease, so the most probable users are those of the highest scores. ln w(s) is called the logit of a score,
and ``logsumexp`` is the logarithm of the sum. A power gives the many users of low scores a floor and lets the best
users' probabilities grow slowly with their scores, which suits scores with a long tail. Scores are cut at 2^30, so that
no sum of a block of rows overflows float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fllm_export.errors import BundleError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LARGEST_EXPONENT = 4
LARGEST_SCORE = 2.0**30
"""Scores beyond this count as this one."""

_KIND = "power"


@dataclass(frozen=True)
class Link:
    """A link.

    Attributes:
        exponent: g of a power, 1 to 4; 0 for the exponential.

    Raises:
        UsageError: there is no link of that exponent.
    """

    exponent: int = 0

    def __post_init__(self) -> None:
        if type(self.exponent) is not int or not 0 <= self.exponent <= LARGEST_EXPONENT:
            raise UsageError(
                f"the exponent of a link is {self.exponent!r}",
                expected=f"an integer from 1 to {LARGEST_EXPONENT}, or 0 for the exponential",
            )

    def __str__(self) -> str:
        return f"power {self.exponent}" if self.exponent else "exponential"

    def logits(self, scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return ln w(s) of scores, float64 of their shape; -infinity, the score of nobody, stays -infinity.

        Bit-identical on every machine, as the keys of samples are made of it.
        """
        import numpy as np

        from fllm_export.portable_log import log

        wide = np.asarray(scores, np.float64)
        if not self.exponent:
            return wide
        found = log(1.0 + self._powers(wide))
        found[np.isneginf(wide)] = -np.inf
        return found

    def log_sums(self, scores: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the sums of w over the rows of scores [B, n] as pairs (m, l), float64 [B] each: exp(m) l."""
        import numpy as np

        wide = np.asarray(scores, np.float64)
        if not self.exponent:
            m = wide.max(1)
            return m, np.exp(wide - m[:, None]).sum(1)
        return np.zeros(len(wide)), wide.shape[1] + self._powers(wide).sum(1)

    def _powers(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return w - 1 of a power. The order of the products is that of libfllm (src/link.hpp)."""
        import numpy as np

        x = np.clip(scores, 0.0, LARGEST_SCORE)
        square: npt.NDArray[np.float64] = x * x
        return [x, square, square * x, square * square][self.exponent - 1]

    def to_json(self) -> dict[str, Any]:
        """Return what a file says of a power; the exponential is not mentioned in files."""
        return {"kind": _KIND, "exponent": self.exponent}

    @classmethod
    def read(cls, value: Any, source: str) -> Link:
        """Return the link that a file describes.

        Args:
            value: the JSON value.
            source: the file, named in messages.

        Raises:
            BundleError: it is not the description of a power.
        """
        if not isinstance(value, dict):
            raise BundleError(f"{source}: `link` is {value!r}", expected="an object")
        if value.get("kind") != _KIND:
            raise BundleError(
                f"{source}: the kind of `link` is {value.get('kind')!r}", expected=_KIND, fix="Upgrade fllm-export"
            )
        exponent = value.get("exponent")
        if value.keys() != {"kind", "exponent"} or type(exponent) is not int or not 1 <= exponent <= LARGEST_EXPONENT:
            raise BundleError(
                f"{source}: `link` is {value!r}",
                expected=f"kind, and an exponent that is an integer from 1 to {LARGEST_EXPONENT}",
            )
        return cls(exponent)


EXPONENTIAL = Link()
LINKS = tuple(Link(exponent) for exponent in range(LARGEST_EXPONENT + 1))
"""All links."""
