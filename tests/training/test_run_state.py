"""What a training run keeps between epochs: damage is found by name, and nothing of it enters the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from fllm_export import BundleError  # noqa: E402 - after the skip
from fllm_export.training.run_state import EpochRecord, RunState  # noqa: E402

RECORD = EpochRecord(1, 0.5, 0.1, 0.2, 0.3, 1.0)


@pytest.fixture
def saved(tmp_path: Path) -> RunState:
    state = RunState.open(tmp_path / "run", {"seed": 1})
    state.save_epoch(RECORD, {"a": torch.arange(6.0).reshape(2, 3)}, {"step": 7, "moments": [torch.ones(1000)]})
    return state


def test_what_is_saved_is_restored(saved: RunState) -> None:
    again = RunState.open(saved.directory, {"seed": 1})
    weights = {"a": torch.zeros(2, 3)}
    again.restore(1, weights)
    assert again.latest == again.best == 1
    assert torch.equal(weights["a"], torch.arange(6.0).reshape(2, 3))
    state = again.optimizer(1)
    assert state is not None
    assert state["step"] == 7
    assert again.optimizer(0) is None


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[::-1], lambda data: b""])
def test_a_damaged_file_is_an_error_of_its_own(saved: RunState, damage: Callable[[bytes], bytes]) -> None:
    for name, read in (
        ("optimizer-0001.pt", lambda: saved.optimizer(1)),
        ("weights-0001.safetensors", lambda: saved.restore(1, {"a": torch.zeros(2, 3)})),
    ):
        path = saved.directory / name
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(BundleError, match=rf"{name} cannot be read.*Delete"):
            read()


@pytest.mark.parametrize("other", [{"a": (3, 2)}, {"b": (2, 3)}, {"a": (2, 3), "b": (1,)}, {}])
def test_tensors_of_another_model_do_not_enter(saved: RunState, other: dict[str, tuple[int, ...]]) -> None:
    weights = {name: torch.zeros(shape) for name, shape in other.items()}
    with pytest.raises(BundleError, match=r"it holds .*, not "):
        saved.restore(1, weights)
    assert all(not value.any() for value in weights.values())
