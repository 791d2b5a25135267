"""What a training run leaves on disk after each epoch, so that the same command goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fllm_export.errors import BundleError, FllmError, UsageError
from fllm_export.files import publish, publish_json
from fllm_export.strict_json import read_object
from fllm_export.system_errors import limit_error

RUN_FILE = "run.json"

# Parts of the identity that are hashes: their values tell a reader nothing.
_HASHED = {"dataset": "data set", "encoder": "encoder"}


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave.

    Attributes:
        epoch: 0 is what comes before LoRA: the closed form on the frozen encoder, or the best pass of the warm-up.
        loss: mean training loss of the epoch's steps; of epoch 0 in closed form, that of the frozen encoder.
        precision: user precision@20 on the items of cold_val.
        recall: user recall@20 on the items of cold_val.
        ndcg: user NDCG@20 on the items of cold_val, by which the best epoch is chosen.
        seconds: wall time.
    """

    epoch: int
    loss: float
    precision: float
    recall: float
    ndcg: float
    seconds: float


class RunState:
    """A directory with the stages computed once, the last epoch's weights and optimiser, and the best weights.

    Attributes:
        records: one per epoch done, in order.
        seconds: wall time of the stages before the epochs.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        self.directory = directory
        self._identity = dict(identity)
        self.records: list[EpochRecord] = []
        self.seconds: dict[str, float] = {}

    @classmethod
    def open(cls, directory: Path, identity: Mapping[str, Any]) -> RunState:
        """Continue the run in ``directory``, or begin one.

        Args:
            directory: made when it is missing.
            identity: JSON-ready values that decide the result (recipe, encoder, data).

        Raises:
            UsageError: the directory holds a run of another identity.
            BundleError: its ``run.json`` is damaged.
        """
        state = cls(directory, identity)
        path = directory / RUN_FILE
        if not path.is_file():
            state._write()
            return state
        again = f"Delete {directory} to start again"
        content = read_object(path, fix=again)
        try:
            state.records = [EpochRecord(**record) for record in content["records"]]
            state.seconds = dict(content["seconds"])
            found = dict(content["identity"])
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path} is damaged: {error}", expected="the state of a run", fix=again) from error
        state._check(found, path)
        return state

    def _check(self, found: dict[str, Any], path: Path) -> None:
        wanted = json.loads(json.dumps(self._identity))
        for key in sorted(wanted.keys() | found.keys()):
            if wanted.get(key) != found.get(key):
                if key in _HASHED:
                    raise UsageError(
                        f"{path} belongs to a run with another {_HASHED[key]}",
                        expected=f"the same {_HASHED[key]}, with the same content",
                        fix=f"Choose another output directory, or delete {self.directory} to start again",
                    )
                raise UsageError(
                    f"{path} belongs to a run whose {key} was {found.get(key)}",
                    expected=str(wanted.get(key)),
                    fix=f"Use the same options to continue, or delete {self.directory} to start again",
                )

    @property
    def latest(self) -> int | None:
        """The last epoch done, or None."""
        return self.records[-1].epoch if self.records else None

    @property
    def best(self) -> int:
        """The epoch with the highest NDCG, the earliest of equals."""
        return max(self.records, key=lambda record: record.ndcg).epoch

    def tensors(self, stage: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of a stage, computed the first time and read afterwards."""
        path = self.directory / f"{stage}.safetensors"
        if not path.is_file():
            with self.timed(stage):
                values = compute()
            _write_tensors(path, values)
            self._write()
        return _read_tensors(path)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note the wall time of a stage."""
        began = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - began, 1)

    def save_epoch(
        self, record: EpochRecord, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any] | None
    ) -> None:
        """Keep an epoch; ``run.json`` is replaced last, so an interrupted save leaves the epoch before in force."""
        _write_tensors(self._weights(record.epoch), weights)
        if optimizer is not None:
            with publish(self._optimizer(record.epoch)) as file:
                torch.save(optimizer, file)
        self.records.append(record)
        self._write()
        kept = {self._weights(self.best), self._weights(record.epoch), self._optimizer(record.epoch)}
        for pattern in ("weights-*.safetensors", "optimizer-*.pt"):
            for file_path in self.directory.glob(pattern):
                if file_path not in kept:
                    file_path.unlink()

    def restore(self, epoch: int, weights: Mapping[str, Tensor]) -> None:
        """Copy what was saved for an epoch, the last one or the best, into the tensors of the same names.

        Raises:
            BundleError: the file is damaged, or holds other tensors.
        """
        path = self._weights(epoch)
        saved = _read_tensors(path)
        expected, found = ({name: list(each.shape) for name, each in some.items()} for some in (weights, saved))
        if found != expected:
            raise _unreadable(path, ValueError(f"it holds {found!r:.200}, not {expected!r:.200}"))
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(saved[name])

    def optimizer(self, epoch: int) -> dict[str, Any] | None:
        """Return the optimiser's state after the last epoch; None after the warm-up.

        Raises:
            BundleError: the file is damaged.
        """
        path = self._optimizer(epoch)
        if not path.is_file():
            return None
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        # torch has no error of its own for a damaged file, and its messages advise to load it unsafely.
        except Exception as error:
            raise _unreadable(path, ValueError("it is no state of an optimiser")) from error
        return content

    def _weights(self, epoch: int) -> Path:
        return self.directory / f"weights-{epoch:04d}.safetensors"

    def _optimizer(self, epoch: int) -> Path:
        return self.directory / f"optimizer-{epoch:04d}.pt"

    def _write(self) -> None:
        records = [asdict(record) for record in self.records]
        content = {"identity": self._identity, "records": records, "seconds": self.seconds}
        publish_json(self.directory / RUN_FILE, content)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with publish(path) as file:
        file.write(save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise _unreadable(path, error) from error
    return tensors


def _unreadable(path: Path, error: Exception) -> FllmError:
    damaged = BundleError(
        f"{path} cannot be read: {error}", expected="tensors", fix=f"Delete {path.parent} to start again"
    )
    return limit_error(error, path) or damaged
