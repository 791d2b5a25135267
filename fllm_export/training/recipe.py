"""The hyper-parameters of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from fllm_export import arguments
from fllm_export.checkpoint.spec import MapperKind
from fllm_export.errors import UsageError
from fllm_export.link import EXPONENTIAL, LINKS, Link

Precision = Literal["float32", "bfloat16", "float16"]
LinkChoice = Literal["auto", "exponential"]

_TRAINED: tuple[MapperKind, ...] = ("linear", "linear_relu", "mlp")
_MOST = (1 << 63) - 1
_EXACT_ITEMS, _LANDMARKS = 24_576, 8_192
_MAY_BE_ZERO = ("seed", "guidance", "vocabulary_decay", "epochs", "head_epochs", "lora_dropout")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number that decides what training gives, the data and the encoder apart.

    Attributes:
        seed: of all random numbers.
        dim: dimension of an item vector and of a user row; None chooses it on cold_val, where the recipe can.
        max_length: tokens of a prompt at most.
        epochs: passes over the training items that train LoRA, at most; 0 keeps the encoder frozen.
        patience: LoRA ends early after so many epochs in a row that do not raise NDCG@20 on cold_val above the best
            before. Without effect on a run with ``max_steps``.
        batch: items in a step of these passes.
        accumulation: parts into which the items of a step are split to save memory. Each part is encoded and has its
            loss, scaled by its share of the items, and the step follows the sum of their gradients. Items of one part
            are not in the loss of another, so the loss by neighbours, which couples the items of a step, sees the
            other parts without gradient.
        precision: of the encoder in these passes. Frozen and validation items are always encoded in float32, as a
            checkpoint is served. float16 needs a GPU.
        learning_rate: of LoRA.
        lora_rank: rank of the LoRA matrices.
        lora_alpha: LoRA's scale is ``lora_alpha / lora_rank``.
        lora_dropout: probability, on the input of LoRA only.
        max_steps: stop LoRA after so many steps; None for no limit. Fewer than one epoch's steps make a short run on
            just the items of those steps. With it the last epoch is kept, not the best.
    """

    vocabulary: ClassVar[str]

    seed: int = 42
    dim: int | None
    max_length: int = 128
    epochs: int = 3
    patience: int = 1
    batch: int
    accumulation: int = 1
    precision: Precision = "float32"
    learning_rate: float = 1e-3
    lora_rank: int
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.type in ("int", "int | None") and value is not None:
                least = 0 if name in _MAY_BE_ZERO else 1
                object.__setattr__(self, name, arguments.integer(value, name, least=least, most=_MOST))
            elif field.type == "float":
                object.__setattr__(self, name, arguments.real(value, name, least=0))
                if value == 0 and name not in _MAY_BE_ZERO:
                    raise UsageError(f"{name} is {value}", expected="a number above 0")
        arguments.one_of(self.precision, "precision", get_args(Precision))
        if self.accumulation > self.batch:
            raise UsageError(f"accumulation is {self.accumulation} and batch is {self.batch}", expected="at most batch")
        if self.lora_dropout >= 1:
            raise UsageError(f"lora_dropout is {self.lora_dropout}", expected="a probability below 1")

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON-ready values, with what makes its user rows as ``vocabulary``."""
        return {"vocabulary": self.vocabulary, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class ClosedFormRecipe(Recipe):
    """User rows in closed form; LoRA trained so that items of the same users become neighbours.

    Attributes:
        landmarks: landmarks of the kernel at most. Up to so many training items the closed form is exact. None takes
            all of up to 24,576 items, and 8,192 of more: with m landmarks the features of T items cost about 6 T m^2
            operations, the exact solution T^3 / 3, and its memory, about 24 T^2 bytes, is what limits it.
        head_epochs: passes over the training items that train a softmax head taught by the closed form; 0 for none.
        link: from scores to probabilities: ``auto`` chooses by likelihood, ``exponential`` is the one that engines on
            GPUs serve.
    """

    vocabulary = "closed_form"

    dim: int | None = None
    batch: int = 64
    lora_rank: int = 16
    landmarks: int | None = None
    head_epochs: int = 6
    link: LinkChoice = "auto"

    def __post_init__(self) -> None:
        arguments.one_of(self.link, "link", get_args(LinkChoice))
        super().__post_init__()

    @property
    def links(self) -> tuple[Link, ...]:
        """The links to choose from."""
        return LINKS if self.link == "auto" else (EXPONENTIAL,)

    def landmarks_of(self, items: int) -> int:
        """Return how many landmarks at most the kernel of so many training items has."""
        if self.landmarks is not None:
            return self.landmarks
        return items if items <= _EXACT_ITEMS else _LANDMARKS


@dataclass(frozen=True, kw_only=True)
class SoftmaxRecipe(Recipe):
    """The published way: user rows by item-oriented BPR, then a softmax over all users.

    Attributes:
        mapper: kind of the map from hidden state to item vector; ``identity`` cannot be trained.
        guidance: the weight lambda of the guidance loss.
        vocabulary_epochs: stage 1, passes over all training pairs.
        vocabulary_batch: stage 1, pairs in a step.
        vocabulary_learning_rate: stage 1, of Adam.
        vocabulary_decay: stage 1, weight of the squared length of the rows in a step.
        warmup_epochs: stage 2, passes over the training items that fit mapper and user rows to the frozen
            encoder's states, which are computed once; LoRA starts from the best of them.
        warmup_batch: stage 2, items in a step of these passes.
        warmup_learning_rate: stage 2, of AdamW in these passes.
        head_learning_rate: stage 2, of mapper and user rows beside LoRA.
    """

    vocabulary = "bpr"

    dim: int = 256
    batch: int = 64
    lora_rank: int = 8
    mapper: MapperKind = "linear"
    guidance: float = 10.0
    vocabulary_epochs: int = 20
    vocabulary_batch: int = 8192
    vocabulary_learning_rate: float = 1e-2
    vocabulary_decay: float = 1e-3
    warmup_epochs: int = 8
    warmup_batch: int = 256
    warmup_learning_rate: float = 6e-3
    head_learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        arguments.one_of(self.mapper, "mapper", _TRAINED)
        super().__post_init__()
