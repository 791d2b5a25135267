"""How new items are onboarded: whom they are given as users, and how their vectors follow from that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from fllm_export import arguments
from fllm_export.engines.names import MODES, Mode

Method = Literal["ridge", "bpr", "propagate"]
Weights = Literal["probability", "uniform"]
METHODS: tuple[Method, ...] = get_args(Method)
WEIGHTS: tuple[Weights, ...] = get_args(Weights)

_SEED_MAX = (1 << 64) - 1


@dataclass(frozen=True)
class OnboardOptions:
    """Choices of :class:`fllm_export.coldstart.onboarding.Onboarder`.

    Attributes:
        k: pseudo-users per item.
        mode: ``topk`` takes the K most probable users, ``sample`` draws K from the distribution without replacement.
        weights: ``probability`` gives a pseudo-user the share p_u / (sum of p over the K) of the weight K that all of
            them have together; ``uniform`` gives each the weight 1.
        half_at: number n0 of real interactions at which pseudo-users have half of their weight, above 0. With n real
            interactions they have n0 / (n0 + n) of it; a real interaction has the weight 1.
        method: ``ridge``, ``bpr`` or ``propagate``; see :mod:`fllm_export.coldstart.updates`.
        background: number of users that pull an item towards the mean item, spread over all users (``ridge``, ``bpr``).
        penalty: the same in all directions, relative to the mean square of a user's number (``ridge``, ``bpr``); above
            0.
        steps: of ``bpr``.
        negatives: items that ``bpr`` compares with.
        seed: of ``sample``, and of the items that are drawn for ``bpr`` and for calibration.

    Raises:
        UsageError: a value is invalid.
    """

    k: int = 20
    mode: Mode = "topk"
    weights: Weights = "probability"
    half_at: float = 10.0
    method: Method = "ridge"
    background: float = 20.0
    penalty: float = 100.0
    steps: int = 10
    negatives: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("k", "steps", "negatives"):
            arguments.integer(getattr(self, name), name, least=1)
        arguments.integer(self.seed, "seed", least=0, most=_SEED_MAX)
        arguments.one_of(self.mode, "mode", MODES)
        arguments.one_of(self.weights, "weights", WEIGHTS)
        arguments.one_of(self.method, "method", METHODS)
        arguments.real(self.background, "background", least=0)
        for name in ("half_at", "penalty"):
            arguments.real(getattr(self, name), name, least=1e-9)

    def to_json(self) -> dict[str, Any]:
        """Return the choices by name."""
        return asdict(self)
