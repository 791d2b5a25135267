"""The FilterLLM model in torch: encoder, pooling, features, mapper and user rows.

The only file that says how they compose.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from fllm_export.checkpoint.feature_layers import FeatureLayers, unit_vectors
from fllm_export.checkpoint.positions import Positions, argument_names
from fllm_export.checkpoint.spec import MapperKind as MapperKind
from fllm_export.checkpoint.spec import Pooling as Pooling


class LinearBeforeReLU(nn.Linear):
    """W x + b of the mapper z = relu(W x + b); :class:`ItemEncoder` applies the relu.

    The relu is not in this module's forward because LoRA adds its low-rank term to the forward of the module
    it wraps: relu(W x + b) + B A x could not be folded into W, relu((W + B A) x + b) can.
    """


class Exponential(nn.Module):
    """The element-wise exponential."""

    def forward(self, x: Tensor) -> Tensor:
        """Return exp(x)."""
        return torch.exp(x)


class KernelMapper(nn.Sequential):
    """W2 exp(W1 x/|x| + b1) + b2.

    x is brought to unit length in here and not in the first layer, so that LoRA on that layer sees what the layer
    sees and can be folded into W1.
    """

    def __init__(self, hidden: int, inner: int, dim: int) -> None:
        super().__init__(nn.Linear(hidden, inner), Exponential(), nn.Linear(inner, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return z, [B, d], of features x, [B, h]."""
        x = unit_vectors(x)
        for layer in self:
            x = layer(x)
        return x


def make_mapper(kind: MapperKind, hidden: int, dim: int, inner: int | None = None) -> nn.Module:
    """Return a mapper from ``hidden`` dims, the width of the features, to the user table's ``dim``.

    Parameter names are those of ``head.safetensors`` after the prefix ``mapper.``: ``weight`` and ``bias``,
    or ``0.weight``, ``0.bias``, ``2.weight``, ``2.bias`` for mlp and kernel, whose inner width is ``inner``
    (``hidden`` when not given). The module of ``linear_relu`` is complete only inside :class:`ItemEncoder`.
    """
    if kind == "identity":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(hidden, dim)
    if kind == "linear_relu":
        return LinearBeforeReLU(hidden, dim)
    width = inner or hidden
    if kind == "kernel":
        return KernelMapper(hidden, width, dim)
    return nn.Sequential(nn.Linear(hidden, width), nn.ReLU(), nn.Linear(width, dim))


def pool(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Reduce the final hidden states [B, L, h] to one vector an item [B, h]; padding may be on either side."""
    if pooling == "mean":
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
    positions = torch.arange(attention_mask.shape[1], device=states.device)
    if pooling == "cls":
        # The first real token: the smallest position whose mask is 1.
        chosen = torch.where(attention_mask > 0, positions, attention_mask.shape[1]).amin(1)
    else:
        chosen = (positions * (attention_mask > 0)).amax(1)
    index = chosen.reshape(-1, 1, 1).expand(-1, 1, states.shape[-1])
    return states.gather(1, index).squeeze(1)


class ItemEncoder(nn.Module):
    """Token ids in, the item vector z out: a HF encoder without LM head, pooling, features and mapper.

    Args:
        encoder: a HF model whose output has ``last_hidden_state`` (after the final norm).
        pooling: ``last`` real token (decoders), ``mean`` or ``cls`` (BERT family).
        mapper: from :func:`make_mapper`.
        features: the steps between pooling and mapper; None for none.
    """

    def __init__(
        self, encoder: nn.Module, pooling: Pooling, mapper: nn.Module, features: FeatureLayers | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling: Pooling = pooling
        self.features = FeatureLayers(()) if features is None else features
        self.mapper = mapper
        # Asked now, because an adapter may wrap the mapper later.
        self.rectified = isinstance(mapper, LinearBeforeReLU)
        self.positions = Positions.of(encoder)
        self._caches = "use_cache" in argument_names(encoder)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return z, float32 [B, d], of int64 token ids and mask [B, L]."""
        return self.mapped(self.pooled(input_ids, attention_mask))

    def mapped(self, x: Tensor) -> Tensor:
        """Return z, float32 [B, d], of features x, [B, h]."""
        z = cast(Tensor, self.mapper(x))
        return torch.relu(z) if self.rectified else z

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return x, the features before the mapper, [B, h]; padding's side and width change nothing in them.

        Without features x is the pooled state itself; with them it is what sentence-transformers calls the embedding.
        """
        return self.reduced(self.hidden(input_ids, attention_mask), attention_mask)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the encoder's final hidden states, [B, L, hidden], of int64 token ids and mask [B, L]."""
        extra: dict[str, object] = {}
        if self.positions.given:
            extra["position_ids"] = self.positions.ids(input_ids, attention_mask)
        if self._caches:
            extra["use_cache"] = False
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **extra)
        return cast(Tensor, output.last_hidden_state)

    def reduced(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Return x, [B, h], of the encoder's final hidden states [B, L, hidden] and mask [B, L]."""
        return cast(Tensor, self.features(pool(states, attention_mask, self.pooling)))


class FilterLLM(nn.Module):
    """The whole model: item encoder and user rows; its output is a score for every user.

    A PEFT adapter may wrap this module, so that LoRA, ``modules_to_save`` and trainable tokens can sit on
    ``item_encoder.encoder``, ``item_encoder.mapper`` and ``user_embeddings`` alike.
    """

    def __init__(self, item_encoder: ItemEncoder, users: int, dim: int) -> None:
        super().__init__()
        self.item_encoder = item_encoder
        self.users = users
        self.user_embeddings = nn.Embedding(users, dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the scores s = E z of all users, [B, N] (no bias, no temperature)."""
        z = self.item_encoder(input_ids, attention_mask)
        # Through the module rather than its weight: an adapter on the embedding acts in its forward.
        everyone = torch.arange(self.users, device=z.device)
        return cast(Tensor, z @ self.user_embeddings(everyone).T)
