"""Sentence-transformers directories: the vector is the one that NumPy makes of the encoder's hidden states."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, normalizers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.merge import merge  # noqa: E402
from fllm_export.checkpoint.sentence_modules import SentenceModules  # noqa: E402
from fllm_export.errors import BundleError, UsageError  # noqa: E402

from .sentence_models import SentenceModel  # noqa: E402

TEXTS = ["jazz trumpet solos", "A Paper on protein folding and yeast", "shoe", "the quick brown fox " * 20]
GELU, IDENTITY = "torch.nn.modules.activation.GELU", "torch.nn.modules.linear.Identity"
NEW = "sentence_transformers.sentence_transformer.modules"


@pytest.fixture
def model(tiny_bert_dir: Path, tmp_path: Path) -> Callable[..., SentenceModel]:
    """Begins a directory with the Transformer module of a tiny BERT."""
    return lambda **options: SentenceModel(tmp_path / "model", tiny_bert_dir, **options)


def hidden_states(encoder: Path, text: str, most: int) -> np.ndarray:
    """Return the final hidden states [tokens, h] of one text alone, cut as the library cuts it."""
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.inference_mode():
        states: np.ndarray = transformers.AutoModel.from_pretrained(encoder)(input_ids=ids).last_hidden_state[0].numpy()
    return states


def vectors(checkpoint: Checkpoint) -> np.ndarray:
    """Return the vectors of the texts, in one padded batch, by the merged item encoder."""
    prompt = checkpoint.prompt()
    ids, mask = prompt.batch(prompt.tokenize(checkpoint.tokenizer(), TEXTS))
    with torch.inference_mode():
        found: np.ndarray = merge(checkpoint, TEXTS[:1]).encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return found


def imported(path: Path, dim: int = 32, **options: Any) -> Checkpoint:
    rows = np.random.default_rng(0).standard_normal((9, dim)).astype(np.float32)
    return Checkpoint.from_sentence_transformer(path, users=rows, **options)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


@pytest.mark.parametrize(
    ("mode", "pooled"),
    [
        ("mean_tokens", lambda states: states.mean(0)),
        ("cls_token", lambda states: states[0]),
        ("lasttoken", lambda states: states[-1]),
    ],
)
@pytest.mark.parametrize("transformer", ["", "0_Transformer"])
def test_pooling_and_normalize(
    model: Callable[..., SentenceModel], mode: str, pooled: Callable[[np.ndarray], np.ndarray], transformer: str
) -> None:
    written = model(transformer=transformer)
    written.pool(mode)
    bare = imported(written.path)
    states = [hidden_states(written.transformer, text, 24) for text in TEXTS]
    assert max(len(rows) for rows in states) == 24
    np.testing.assert_allclose(vectors(bare), [pooled(rows) for rows in states], atol=2e-6)
    written.normalize()
    normal = imported(written.path)
    np.testing.assert_allclose(vectors(normal), [unit(pooled(rows)) for rows in states], atol=1e-6)
    assert normal.spec.to_json()["features"] == [{"kind": "normalize"}]
    assert normal.spec.max_length == 24
    assert Path(normal.spec.base_model) == written.transformer.resolve()


def test_dense_layers_in_their_order(model: Callable[..., SentenceModel], tmp_path: Path) -> None:
    written = model()
    written.pool()
    first = written.dense(48, 32)
    written.normalize()
    second = written.dense(16, 48, IDENTITY, bias=False)
    written.add("sentence_transformers.models.Dropout", "5_Dropout", {"dropout": 0.5})
    checkpoint = imported(written.path, dim=16)
    one, two = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    wanted = []
    for text in TEXTS:
        x = hidden_states(written.path, text, 24).mean(0)
        x = unit(np.tanh(one["linear.weight"] @ x + one["linear.bias"]))
        wanted.append(two["linear.weight"] @ x)
    np.testing.assert_allclose(vectors(checkpoint), wanted, atol=2e-6)
    checkpoint.save(tmp_path / "saved")
    loaded = Checkpoint.load(tmp_path / "saved")
    assert loaded.fingerprint() == checkpoint.fingerprint()
    np.testing.assert_allclose(vectors(loaded), wanted, atol=2e-6)


def test_weights_in_a_torch_file_are_the_same(model: Callable[..., SentenceModel]) -> None:
    written = model()
    written.pool()
    folder = written.dense(8, 32, GELU)
    with_safetensors = imported(written.path, dim=8).fingerprint()
    weights = {name: torch.from_numpy(value) for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert imported(written.path, dim=8).fingerprint() == with_safetensors


def test_the_form_of_new_releases(model: Callable[..., SentenceModel], tiny_bert_dir: Path) -> None:
    written = model()
    written.entries[0]["type"] = "sentence_transformers.base.modules.transformer.Transformer"
    settings = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    }
    written.put(written.path / "sentence_bert_config.json", settings)
    pooling = {"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True}
    written.add(f"{NEW}.pooling.Pooling", "1_Pooling", pooling)
    channels = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    written.add("sentence_transformers.base.modules.normalize.Normalize", "2_Normalize", channels)
    found = SentenceModules.read(written.path)
    assert (found.pooling, found.dim, [str(step) for step in found.features.specs]) == ("cls", 32, ["normalize"])
    # Nothing but the encoder's positions limits the length.
    assert found.texts.max_length == 512
    written.put(written.path / "tokenizer_config.json", {"model_max_length": 77, "padding_side": "left"})
    found = SentenceModules.read(written.path)
    assert (found.texts.max_length, found.texts.padding_side) == (77, "left")
    assert SentenceModules.read(written.path).transformer == written.path


def test_the_default_prompt_stands_before_every_text(model: Callable[..., SentenceModel]) -> None:
    written = model()
    written.pool()
    prompts = {"prompts": {"query": "a novel about ", "passage": ""}, "default_prompt_name": "query"}
    written.put(written.path / "config_sentence_transformers.json", prompts)
    checkpoint = imported(written.path)
    assert checkpoint.spec.template == "a novel about {text}"
    wanted = [hidden_states(written.path, "a novel about " + text, 24).mean(0) for text in TEXTS]
    np.testing.assert_allclose(vectors(checkpoint), wanted, atol=2e-6)
    assert imported(written.path, template="{text}").spec.template == "{text}"
    written.put(written.path / "config_sentence_transformers.json", {**prompts, "default_prompt_name": None})
    assert imported(written.path).spec.template == "{text}"


def test_do_lower_case_needs_a_tokenizer_that_does_it(model: Callable[..., SentenceModel]) -> None:
    written = model()
    written.pool()
    settings = {"max_seq_length": 24, "do_lower_case": True}
    written.put(written.path / "sentence_bert_config.json", settings)
    assert SentenceModules.read(written.path).texts.max_length == 24
    file = written.path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.save(str(file))
    with pytest.raises(BundleError, match=r"do_lower_case is true and .* keeps capital letters"):
        SentenceModules.read(written.path)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFC()])
    tokenizer.save(str(file))
    assert SentenceModules.read(written.path).texts.max_length == 24


def test_users_are_an_array_or_a_file(model: Callable[..., SentenceModel], tmp_path: Path) -> None:
    written = model()
    written.pool()
    rows = np.random.default_rng(0).standard_normal((9, 32)).astype(np.float32)
    ids, bias = np.arange(9) * 3, np.linspace(-1, 1, 9, dtype=np.float32)
    whole = imported(written.path, ids=ids, bias=bias)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "ids.npy", ids)
    save_file({"user_embeddings": rows, "ids": ids, "bias": bias}, tmp_path / "rows.safetensors")
    read = Checkpoint.from_sentence_transformer
    for checkpoint in (
        read(written.path, users=tmp_path / "rows.npy", ids=ids, bias=bias),
        read(str(written.path), users=str(tmp_path / "rows.npy"), ids=tmp_path / "ids.npy", bias=list(bias)),
        read(written.path, users=rows, ids=tmp_path / "ids.npy", bias=bias),
        read(written.path, users=tmp_path / "rows.safetensors"),
    ):
        assert checkpoint.fingerprint() == whole.fingerprint()
    with pytest.raises(UsageError, match="holds ids, and ids was given"):
        read(written.path, users=tmp_path / "rows.safetensors", ids=ids)
    with pytest.raises(UsageError, match="holds bias, and bias was given"):
        read(written.path, users=tmp_path / "rows.safetensors", bias=bias)


def test_arguments_that_do_not_fit(model: Callable[..., SentenceModel]) -> None:
    written = model()
    written.pool()
    with pytest.raises(UsageError, match="the user rows have 31 dimensions; expected 32, those of a text's vector"):
        imported(written.path, dim=31)
    assert imported(written.path, max_length=7).spec.max_length == 7
    with pytest.raises(UsageError, match="max_length is 0"):
        imported(written.path, max_length=0)
    with pytest.raises(UsageError, match=r"the template .no place. holds \{text\} 0 times"):
        imported(written.path, template="no place")
    with pytest.raises(BundleError, match=r"neither at .*nowhere"):
        imported(written.path / "nowhere")
    (written.path / "sentence_bert_config.json").unlink()
    config = json.loads((written.path / "config.json").read_text())
    written.put(written.path / "config.json", {k: v for k, v in config.items() if k != "max_position_embeddings"})
    written.put(written.path / "tokenizer_config.json", {"model_max_length": int(1e30)})
    with pytest.raises(UsageError, match="does not limit the length of texts; expected the argument max_length"):
        imported(written.path)


def test_a_directory_of_another_kind(tiny_bert_dir: Path) -> None:
    with pytest.raises(BundleError, match=r"modules\.json does not exist; expected a sentence-transformers directory"):
        imported(tiny_bert_dir)


def test_a_decoder_is_padded_on_its_side(tiny_llama_dir: Path, tmp_path: Path) -> None:
    written = SentenceModel(tmp_path / "model", tiny_llama_dir)
    written.pool("lasttoken")
    written.normalize()
    checkpoint = imported(written.path)
    assert checkpoint.spec.padding_side == "left"
    wanted = [unit(hidden_states(written.path, text, 24)[-1]) for text in TEXTS]
    np.testing.assert_allclose(vectors(checkpoint), wanted, atol=2e-6)


def test_all_minilm_is_read_whole(minilm_dir: Path) -> None:
    checkpoint = imported(minilm_dir, dim=384)
    wanted = [unit(hidden_states(minilm_dir, text, 256).mean(0)) for text in TEXTS]
    np.testing.assert_allclose(vectors(checkpoint), wanted, atol=1e-6)


def test_links_are_read_like_files(model: Callable[..., SentenceModel], tmp_path: Path) -> None:
    """As in the Hugging Face cache: every file is a link to a blob outside the directory."""
    written = model()
    written.pool()
    written.dense(8, 32)
    plain = imported(written.path, dim=8).fingerprint()
    for number, file in enumerate(sorted(path for path in written.path.rglob("*") if path.is_file())):
        blob = tmp_path / f"blob-{number}"
        shutil.move(file, blob)
        file.symlink_to(blob)
    assert imported(written.path, dim=8).fingerprint() == plain
