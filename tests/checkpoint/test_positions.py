"""What an encoder can number: tokens up to its positions, ids up to its rows; both refused with both numbers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fllm_export.checkpoint.base import BaseModel  # noqa: E402
from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.merge import load_unmerged  # noqa: E402
from fllm_export.checkpoint.model import ItemEncoder  # noqa: E402
from fllm_export.checkpoint.positions import Positions, require_rows  # noqa: E402
from fllm_export.errors import BundleError  # noqa: E402

from ..conftest import TinyCheckpoint  # noqa: E402


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
def test_padding_changes_no_item_vector(request: pytest.FixtureRequest, family: str, pooling: str) -> None:
    model = transformers.AutoModel.from_pretrained(request.getfixturevalue(f"tiny_{family}_dir")).eval()
    encoder = ItemEncoder(model, pooling, torch.nn.Identity())  # type: ignore[arg-type]
    text = torch.tensor([[5, 9, 1, 7]])  # 1 is the token that the RoBERTa does not count
    with torch.inference_mode():
        states = model(input_ids=text).last_hidden_state[0]
        wanted = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        for left in range(4):
            ids = torch.nn.functional.pad(text, (left, 3 - left))
            mask = torch.nn.functional.pad(torch.ones_like(text), (left, 3 - left))
            torch.testing.assert_close(encoder(ids, mask)[0], wanted, atol=1e-5, rtol=1e-4)


def test_more_tokens_than_positions_are_refused(tiny_checkpoint: TinyCheckpoint) -> None:
    for family in ("bert", "llama"):
        made = tiny_checkpoint(family, lora=False)
        load_unmerged(Checkpoint(replace(made.spec, max_length=512), made.base, None, made.mapper, made.users))
        long = Checkpoint(replace(made.spec, max_length=513), made.base, None, made.mapper, made.users)
        with pytest.raises(BundleError, match=r"max_length is 513 and .* has positions for 512 tokens"):
            load_unmerged(long)


def test_positions_that_the_configuration_keeps_to_itself(tiny_roberta_dir: Path) -> None:
    def positions(config: object) -> Positions:
        with torch.device("meta"):
            return Positions.of(transformers.AutoModel.from_config(config))

    roberta = positions(transformers.AutoConfig.from_pretrained(tiny_roberta_dir))
    assert roberta == Positions(given=True, uncounted=1, most=510)
    small = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 2, "long_factor": [2.0] * 2}
    config = transformers.Phi3Config(
        **small,
        intermediate_size=8,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        original_max_position_embeddings=128,
        pad_token_id=0,
        rope_parameters={**rope, "original_max_position_embeddings": 128},
    )
    assert positions(config).most == 128
    assert positions(transformers.BloomConfig(vocab_size=20, hidden_size=8, n_layer=1, n_head=2)).most is None


def test_more_tokens_than_embedding_rows_are_refused(
    tiny_bert_dir: Path, tmp_path: Path, tiny_checkpoint: TinyCheckpoint
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_bert_dir, base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    rows = len(tokenizer)
    tokenizer.add_tokens(["ISBN"])
    tokenizer.save_pretrained(base)
    made = tiny_checkpoint("bert", lora=False)
    with pytest.raises(BundleError, match=rf"'ISBN' of the id {rows} and the input embedding has {rows} rows"):
        load_unmerged(Checkpoint(made.spec, base, None, made.mapper, made.users))


def test_a_padding_token_without_a_row_is_refused(tiny_bert_dir: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_bert_dir, base)
    (base / "tokenizer_config.json").unlink()
    config = json.loads((base / "config.json").read_text())
    model = transformers.AutoModel.from_pretrained(base)
    require_rows(model, BaseModel.check(base))
    (base / "config.json").write_text(json.dumps({**config, "pad_token_id": 5000}))
    with pytest.raises(BundleError, match=r"the token to pad with of the id 5000 and the input embedding has \d+ rows"):
        require_rows(model, BaseModel.check(base))
