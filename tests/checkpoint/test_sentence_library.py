"""The vectors of the sentence-transformers library itself, where it is installed; no dependency of this project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
try:
    from sentence_transformers import SentenceTransformer
except ImportError:
    pytest.skip("the library sentence-transformers is not installed", allow_module_level=True)

from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.merge import merge  # noqa: E402
from fllm_export.errors import HardwareError  # noqa: E402
from fllm_export.training.encoders import choose_encoder  # noqa: E402

from ..conftest import SENTENCES  # noqa: E402
from .sentence_models import SentenceModel  # noqa: E402

TEXTS = [*SENTENCES, "", " spaces around ", "na\u00efve \u00c7AF\u00c9 \u2014 \u65e5\u672c\u8a9e", "word " * 900]
ACTIVATIONS = ("linear.Identity", *(f"activation.{name}" for name in ("Tanh", "ReLU", "GELU", "Sigmoid")))


def difference(directory: Path) -> float:
    """Return the largest difference of a number of any text's vector."""
    wanted = SentenceTransformer(str(directory), device="cpu").encode(TEXTS, batch_size=4)
    checkpoint = Checkpoint.from_sentence_transformer(directory, users=np.eye(wanted.shape[1], dtype=np.float32))
    prompt = checkpoint.prompt()
    ids, mask = prompt.batch(prompt.tokenize(checkpoint.tokenizer(), TEXTS))
    with torch.inference_mode():
        found = merge(checkpoint, TEXTS[:1]).encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return float(np.abs(found - wanted).max())


@pytest.mark.parametrize("name", ["minilm", "mpnet"])
def test_pretrained_models(name: str, tmp_path: Path) -> None:
    try:
        directory = choose_encoder(name, tmp_path).path
    except HardwareError as missing:
        pytest.skip(missing.found)
    assert difference(directory) < 1e-6


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token", "lasttoken"])
def test_poolings_and_dense_layers(activation: str, mode: str, tiny_bert_dir: Path, tmp_path: Path) -> None:
    written = SentenceModel(tmp_path / "model", tiny_bert_dir, "0_Transformer")
    written.pool(mode)
    written.dense(40, 32, "torch.nn.modules." + activation)
    written.normalize()
    written.dense(16, 40, bias=False)
    prompts = {"prompts": {"passage": "a paper on "}, "default_prompt_name": "passage"}
    written.put(written.path / "config_sentence_transformers.json", prompts)
    assert difference(written.path) < 3e-6


def test_a_decoder_saved_by_the_library(tiny_llama_dir: Path, tmp_path: Path) -> None:
    written = SentenceModel(tmp_path / "model", tiny_llama_dir)
    written.pool("lasttoken")
    written.normalize()
    SentenceTransformer(str(written.path), device="cpu").save(str(tmp_path / "saved"))
    assert difference(tmp_path / "saved") < 3e-6
