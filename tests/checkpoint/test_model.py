from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from fllm_export.checkpoint.feature_layers import FeatureLayers  # noqa: E402
from fllm_export.checkpoint.model import FilterLLM, ItemEncoder, make_mapper, pool  # noqa: E402

lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(lengths=lengths, side=st.sampled_from(["left", "right"]), width=st.integers(6, 9))
def test_pooling_sees_only_real_tokens(lengths: list[int], side: str, width: int) -> None:
    states = torch.randn(len(lengths), width, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(len(lengths), width, dtype=torch.int64)
    for i, length in enumerate(lengths):
        mask[i, slice(width - length, width) if side == "left" else slice(0, length)] = 1
    for i, length in enumerate(lengths):
        real = states[i][mask[i].bool()]
        assert real.shape == (length, 5)
        torch.testing.assert_close(pool(states, mask, "last")[i], real[-1])
        torch.testing.assert_close(pool(states, mask, "cls")[i], real[0])
        torch.testing.assert_close(pool(states, mask, "mean")[i], real.mean(0))


class Hidden(torch.nn.Module):
    """Stands for a HF encoder: the hidden state is a function of the token."""

    def forward(self, input_ids: Any, **_: object) -> Any:
        class Output:
            last_hidden_state = torch.stack([input_ids.float().sin(), -input_ids.float()], -1)

        return Output


@pytest.mark.parametrize("kind", ["identity", "linear", "linear_relu", "mlp", "kernel"])
def test_mapper_after_pooling(kind: Any) -> None:
    torch.manual_seed(0)
    mapper = make_mapper(kind, 2, 2, 3)
    encoder = ItemEncoder(Hidden(), "last", mapper)
    ids, mask = torch.tensor([[3, 5, 9]]), torch.tensor([[1, 1, 0]])
    x = torch.tensor([[np.sin(5.0), -5.0]], dtype=torch.float32)
    wanted = mapper(x)
    if kind == "linear_relu":
        wanted = torch.relu(wanted)
    torch.testing.assert_close(encoder(ids, mask), wanted)
    model = FilterLLM(encoder, users=4, dim=2)
    torch.testing.assert_close(model(ids, mask), wanted @ model.user_embeddings.weight.T)
    state = {name for name in mapper.state_dict()}
    assert (
        state
        == {
            "identity": set(),
            "linear": {"weight", "bias"},
            "linear_relu": {"weight", "bias"},
            "mlp": {"0.weight", "0.bias", "2.weight", "2.bias"},
            "kernel": {"0.weight", "0.bias", "2.weight", "2.bias"},
        }[kind]
    )


def test_features_before_the_mapper() -> None:
    features = FeatureLayers([(torch.nn.Linear(2, 3), "tanh"), None])
    encoder = ItemEncoder(Hidden(), "last", make_mapper("kernel", 3, 2, 4), features)
    ids, mask = torch.tensor([[3, 5, 9]]), torch.tensor([[1, 1, 0]])
    x = torch.nn.functional.normalize(torch.tanh(features[0](torch.tensor([[np.sin(5.0), -5.0]]).float())))
    torch.testing.assert_close(encoder.pooled(ids, mask), x)
    first, second = encoder.mapper[0], encoder.mapper[2]
    torch.testing.assert_close(encoder(ids, mask), second(torch.exp(first(x))))
    assert [name for name in encoder.state_dict() if name.startswith("features")] == [
        "features.0.weight",
        "features.0.bias",
    ]
