"""The course of a run as scalars that TensorBoard shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fllm_export.errors import HardwareError, UsageError
from fllm_export.system_errors import check_place
from fllm_export.training.run_state import EpochRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FLUSH_SECONDS = 10


class RunLog:
    """Event files in a directory; every scalar stands at the number of LoRA steps that were taken before it.

    Args:
        directory: made by :meth:`begin`; None for no log.

    Raises:
        UsageError: no directory can be made there.
        HardwareError: tensorboard is not installed.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._writer: SummaryWriter | None = None
        if directory is None:
            return
        check_place(directory, "log")
        if directory.is_file():
            raise UsageError(f"log is {directory}, which is a file", expected="a directory")
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise HardwareError(
                "a log needs tensorboard, which is not installed", fix="Run pip install 'fllm-export[tensorboard]'"
            ) from error

    def begin(self, kept: int | None) -> None:
        """Open a new event file, which hides what an interrupted run wrote after its last complete epoch.

        Args:
            kept: LoRA steps up to that epoch; None where a run begins, which hides everything in the directory.
        """
        if self._directory is not None:
            from torch.utils.tensorboard import SummaryWriter

            purged = 0 if kept is None else kept + 1
            self._writer = SummaryWriter(str(self._directory), purge_step=purged, flush_secs=_FLUSH_SECONDS)

    def step(self, step: int, loss: float, learning_rate: float, items_per_second: float) -> None:
        """Write the scalars of a LoRA step."""
        values = {"loss": loss, "learning_rate": learning_rate, "items_per_second": items_per_second}
        self._write({f"train/{name}": value for name, value in values.items()}, step)

    def epoch(self, step: int, record: EpochRecord) -> None:
        """Write the scalars of an epoch whose last step is ``step``; 0 is what comes before LoRA."""
        figures = {"precision@20": record.precision, "recall@20": record.recall, "ndcg@20": record.ndcg}
        named = {f"cold_val/{name}": value for name, value in figures.items()}
        self._write({"epoch/loss": record.loss, **named}, step)

    def _write(self, scalars: dict[str, float], step: int) -> None:
        if self._writer is not None:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()
