from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from fllm_export.errors import BundleError, HardwareError, UsageError  # noqa: E402
from fllm_export.training.encoders import choose_encoder, linear_layers, lora_targets  # noqa: E402
from fllm_export.training.lora import add_lora, load_encoder, lora_training  # noqa: E402
from fllm_export.training.recipe import ClosedFormRecipe, SoftmaxRecipe  # noqa: E402

from ..checkpoint.sentence_models import SentenceModel  # noqa: E402


def test_a_bidirectional_encoder_is_pooled_over_the_bare_text(tiny_bert_dir, tmp_path):
    choice = choose_encoder(str(tiny_bert_dir), tmp_path)
    assert (choice.pooling, choice.padding_side, choice.template) == ("mean", "right", "{text}")


def test_a_decoder_answers_a_closing_question_with_its_last_token(tiny_llama_dir, tmp_path):
    choice = choose_encoder(str(tiny_llama_dir), tmp_path)
    assert (choice.pooling, choice.padding_side) == ("last", "left")
    assert choice.template.endswith("?")


def test_minilm_is_found_by_name_with_all_its_modules(minilm_dir, tmp_path):
    choice = choose_encoder("minilm", tmp_path)
    assert (choice.path, choice.pooling, choice.template) == (minilm_dir, "mean", "{text}")
    assert [str(step) for step in choice.features.specs] == ["normalize"]
    assert (choice.longest(128), choice.longest(512)) == (128, 256)


def test_a_sentence_transformers_directory_says_what_it_needs(tiny_bert_dir, tmp_path):
    written = SentenceModel(tmp_path / "model", tiny_bert_dir, "0_Transformer")
    written.pool("cls_token")
    written.dense(16, 32)
    written.normalize()
    choice = choose_encoder(str(written.path), tmp_path)
    assert (choice.path, choice.pooling, choice.padding_side) == (written.transformer, "cls", "right")
    assert choice.features.width(32) == 16
    assert choice.longest(128) == 24
    written.add("sentence_transformers.models.LSTM", "4_LSTM", {})
    with pytest.raises(BundleError, match=r"the type 'sentence_transformers\.models\.LSTM', which is not supported"):
        choose_encoder(str(written.path), tmp_path)


def test_a_fingerprint_covers_all_that_decides_a_vector(tiny_bert_dir, tmp_path):
    one = SentenceModel(tmp_path / "one", tiny_bert_dir)
    one.pool()
    folder = one.dense(16, 32)
    first = choose_encoder(str(one.path), tmp_path).fingerprint()
    shutil.copytree(one.path, tmp_path / "moved")
    assert choose_encoder(str(tmp_path / "moved"), tmp_path).fingerprint() == first
    found = {first}
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "linear.bias": weights["linear.bias"] + 1}, folder / "model.safetensors")
    found.add(choose_encoder(str(one.path), tmp_path).fingerprint())
    one.normalize()
    found.add(choose_encoder(str(one.path), tmp_path).fingerprint())
    one.put(one.path / "sentence_bert_config.json", {"max_seq_length": 25})
    found.add(choose_encoder(str(one.path), tmp_path).fingerprint())
    one.put(one.path / "tokenizer_config.json", {"padding_side": "left"})
    found.add(choose_encoder(str(one.path), tmp_path).fingerprint())
    assert len(found) == 5


def test_mpnet_comes_out_of_its_packages(tmp_path):
    try:
        choice = choose_encoder("mpnet", tmp_path)
    except HardwareError as missing:
        pytest.skip(f"the five packages of mpnet are not installed ({missing.found})")
    assert choice.path == tmp_path / "mpnet"
    assert ([str(step) for step in choice.features.specs], choice.max_length) == (["normalize"], 384)
    model, hidden = load_encoder(choice.path)
    assert (hidden, lora_targets(model)) == (768, ["q", "v"])


def test_what_is_no_encoder_is_refused(tiny_bert_dir, tmp_path):
    with pytest.raises(UsageError, match="the encoder 'gpt-9' is unknown"):
        choose_encoder("gpt-9", tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert_dir, broken)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        choose_encoder(str(broken), tmp_path)


def test_lora_sits_on_query_and_value_and_everything_else_is_frozen(tiny_bert_dir, tiny_llama_dir):
    for path, names in ((tiny_bert_dir, ["query", "value"]), (tiny_llama_dir, ["q_proj", "v_proj"])):
        model, hidden = load_encoder(path)
        assert hidden == 32
        assert lora_targets(model) == names
        adapted = add_lora(model, SoftmaxRecipe(), lora_targets(model))
        trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
        assert len(trained) == 2 * 2 * 2  # layers, matrices, factors A and B
        assert all(".lora_" in n and any(f".{name}." in n for name in names) for n in trained)
    with pytest.raises(UsageError, match="the encoder's linear layers are"):
        lora_targets(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_lora_can_sit_on_every_linear_layer_that_states_go_through(tiny_bert_dir, tiny_llama_dir):
    for path, per_layer in ((tiny_bert_dir, 6), (tiny_llama_dir, 7)):
        model, _ = load_encoder(path)
        names = linear_layers(model)
        assert len(names) == 2 * per_layer
        adapted = add_lora(model, ClosedFormRecipe(), names)
        trained = {n.partition(".lora_")[0] for n, p in adapted.named_parameters() if p.requires_grad}
        assert trained == {f"base_model.model.{name}" for name in names}


def test_only_loras_own_dropout_is_active(tiny_bert_dir):
    model, _ = load_encoder(tiny_bert_dir)
    adapted = add_lora(model, SoftmaxRecipe(lora_dropout=0.5), lora_targets(model))
    lora_training(adapted)
    active = [n for n, m in adapted.named_modules() if isinstance(m, torch.nn.Dropout) and m.training]
    assert len(active) == 4
    assert all(".lora_dropout." in n for n in active)


def test_an_encoder_that_cannot_be_loaded_twice_alike(tiny_bert_dir: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_bert_dir, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    assert load_encoder(base)[1] == config["hidden_size"]
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(BundleError, match=r"lack the tensor 'encoder\.layer\.2"):
        load_encoder(base)
