"""Where a run computes, and in what precision LoRA is trained: accelerate's device, autocast and loss scaling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.errors import UsageError
from fllm_export.training.recipe import Precision

_MIXED: dict[Precision, str] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


class Arithmetic:
    """The device of encoder and loss, and the precision of the encoder's matrix products while LoRA is trained.

    Weights, gradients and the optimiser's moments are float32 in each precision.

    Attributes:
        device: a GPU where torch finds one, otherwise the CPU.
        scaler: scales the loss of a float16 run, whose gradients would underflow otherwise; disabled in other runs.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.scaler: GradScaler = accelerator.scaler or GradScaler(enabled=False)

    @classmethod
    @contextmanager
    def of(cls, precision: Precision) -> Iterator[Arithmetic]:
        """Give the arithmetic of one run; accelerate's own state of the process comes out as it went in.

        Raises:
            UsageError: the precision is float16 and there is no GPU.
        """
        if precision == "float16" and not torch.cuda.is_available():
            raise UsageError(
                "precision is float16 and torch finds no GPU",
                expected="bfloat16 or float32 on a CPU",
                fix="Use bfloat16 (--precision bfloat16)",
            )
        # accelerate has one precision per process and refuses a second one, also that of a run before this one.
        states = AcceleratorState, GradientState
        before = [dict(state._shared_state) for state in states]
        try:
            for state in states:
                state._reset_state()
            # Named here, so that an environment variable of accelerate cannot divide the loss a second time.
            steps = GradientAccumulationPlugin(num_steps=1)
            yield cls(Accelerator(mixed_precision=_MIXED[precision], gradient_accumulation_plugin=steps))
        finally:
            for state, content in zip(states, before, strict=True):
                state._reset_state()
                state._shared_state.update(content)

    def pooled(self, encoder: ItemEncoder, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return x, float32 [B, h], of int64 token ids and mask [B, L], on the device.

        Only the encoder runs in the precision of the run. Pooling, features, and all that follows are float32.
        """
        mask = attention_mask.to(self.device)
        with self._accelerator.autocast():
            states = encoder.hidden(input_ids.to(self.device), mask)
        return encoder.reduced(states.float(), mask)
