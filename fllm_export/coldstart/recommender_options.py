"""Hyper-parameters of the recommenders, as chosen on validation pairs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from fllm_export import arguments
from fllm_export.coldstart.names import MODEL_NAMES, ModelName


@dataclass(frozen=True)
class RecommenderOptions:
    """How a recommender is trained.

    Attributes:
        model: ``mf``, ``lightgcn`` or ``ngcf``.
        dim: dimension d of the free vectors.
        layers: propagations; 0 for ``mf``.
        rate: learning rate of Adam.
        decay: weight of the squared lengths of the three vectors of a triple in the loss.
        batch: triples per step.
        epochs: at most so many.
        patience: epochs without a better NDCG@20 on ``warm_val`` after which training stops.
        scale: of the vectors that training begins with, in units of the singular vectors' own.
        dropout: share of numbers that NGCF drops per layer.

    Raises:
        UsageError: a value is invalid.
    """

    model: ModelName
    dim: int = 200
    layers: int = 0
    rate: float = 1e-2
    decay: float = 1e-2
    batch: int = 16_384
    epochs: int = 30
    patience: int = 3
    scale: float = 4.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        arguments.one_of(self.model, "model", MODEL_NAMES)
        for name in ("dim", "batch", "patience"):
            arguments.integer(getattr(self, name), name, least=1)
        for name in ("layers", "epochs"):
            arguments.integer(getattr(self, name), name, least=0)
        for name in ("rate", "scale"):
            arguments.real(getattr(self, name), name, least=1e-9)
        arguments.real(self.decay, "decay", least=0)
        arguments.real(self.dropout, "dropout", least=0, most=0.9)

    @classmethod
    def default(cls, model: ModelName, **changes: Any) -> RecommenderOptions:
        """Return a model's options, some of them changed."""
        return replace(_DEFAULTS[arguments.one_of(model, "model", MODEL_NAMES)], **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the options by name."""
        return asdict(self)


_DEFAULTS: dict[ModelName, RecommenderOptions] = {
    "mf": RecommenderOptions("mf"),
    "lightgcn": RecommenderOptions("lightgcn", dim=512, layers=1, rate=3e-3),
    "ngcf": RecommenderOptions("ngcf", layers=2, rate=2e-3, decay=1e-3, dropout=0.1),
}
