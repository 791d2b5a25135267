"""The content models that an evaluation trains when nothing else is asked for."""

from __future__ import annotations

from fllm_export.coldstart.content_models.clcrec import Clcrec
from fllm_export.coldstart.content_models.content_model import ContentModel
from fllm_export.coldstart.content_models.dropout_net import DropoutNet

CONTENT_MODELS: tuple[ContentModel, ...] = (DropoutNet(), Clcrec())
