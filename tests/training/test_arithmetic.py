from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("accelerate")
pytest.importorskip("pyarrow")

from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402

from fllm_export.checkpoint.model import ItemEncoder, make_mapper  # noqa: E402
from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.evaluation.dataset import Dataset  # noqa: E402
from fllm_export.training import trainer  # noqa: E402
from fllm_export.training.arithmetic import Arithmetic  # noqa: E402
from fllm_export.training.lora import load_encoder  # noqa: E402
from fllm_export.training.recipe import ClosedFormRecipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

MIXED = ClosedFormRecipe(
    dim=16, max_length=32, epochs=2, batch=16, learning_rate=1e-2, precision="bfloat16", accumulation=2
)


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def data(small_dataset):
    return Dataset.load(small_dataset)


def weights(out):
    names = ("head.safetensors", "users-00001-of-00001.safetensors", "adapter/adapter_model.safetensors")
    return [(out / name).read_bytes() for name in names if (out / name).exists()]


@pytest.mark.usefixtures("without_gpu")
def test_float16_without_a_gpu_is_refused_before_anything_is_written(data, tiny_bert_dir, tmp_path):
    recipe = replace(MIXED, precision="float16")
    with pytest.raises(UsageError, match=r"no GPU; expected bfloat16 or float32.*--precision bfloat16"):
        trainer.train(data, tmp_path / "checkpoint", recipe, encoder=str(tiny_bert_dir))
    assert list(tmp_path.iterdir()) == []


def test_only_the_encoder_of_a_bfloat16_run_computes_in_bfloat16(tiny_bert_dir):
    encoder = ItemEncoder(load_encoder(tiny_bert_dir)[0], "mean", make_mapper("identity", 1, 1))
    ids, mask = torch.arange(5, 21).reshape(2, 8), torch.ones(2, 8, dtype=torch.int64)
    seen = []
    dense = next(module for module in encoder.modules() if isinstance(module, torch.nn.Linear))
    dense.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        exact = encoder.pooled(ids, mask)
        with Arithmetic.of("bfloat16") as arithmetic:
            rounded = arithmetic.pooled(encoder, ids, mask).cpu()
        with Arithmetic.of("float32") as arithmetic:
            same = arithmetic.pooled(encoder, ids, mask).cpu()
    assert seen == [torch.float32, torch.bfloat16, torch.float32]
    assert rounded.dtype == torch.float32
    assert torch.equal(same, exact)
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("raised", [False, True])
def test_the_callers_state_of_accelerate_is_left_alone(raised):
    AcceleratorState._reset_state(reset_partial_state=True)
    Accelerator(mixed_precision="bf16")
    try:
        with Arithmetic.of("float32"):
            assert AcceleratorState().mixed_precision == "no"
            if raised:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert AcceleratorState().mixed_precision == "bf16"
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_resumed_bfloat16_run_with_accumulation_gives_what_an_uninterrupted_one_gives(data, tiny_bert_dir, tmp_path):
    def interrupt(stage, done, total):
        if (stage, done) == ("LoRA", 8):
            raise KeyboardInterrupt

    whole = trainer.train(data, tmp_path / "whole", MIXED, encoder=str(tiny_bert_dir))
    with pytest.raises(KeyboardInterrupt):
        trainer.train(data, tmp_path / "resumed", MIXED, encoder=str(tiny_bert_dir), progress=interrupt)
    resumed = trainer.train(data, tmp_path / "resumed", MIXED, encoder=str(tiny_bert_dir))
    assert [(r.loss, r.ndcg) for r in resumed.epochs] == [(r.loss, r.ndcg) for r in whole.epochs]
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    assert whole.epochs[-1].loss < whole.epochs[0].loss


def test_a_run_judges_the_model_in_float32_whatever_trains_it(data, tiny_bert_dir, tmp_path):
    recipes = [replace(MIXED, epochs=0, precision=precision) for precision in ("bfloat16", "float32")]
    reports = [
        trainer.train(data, tmp_path / recipe.precision, recipe, encoder=str(tiny_bert_dir)) for recipe in recipes
    ]
    assert reports[0].epochs[0].loss == reports[1].epochs[0].loss
    assert weights(tmp_path / "bfloat16") == weights(tmp_path / "float32")


def test_more_parts_than_items_and_an_unknown_precision_are_refused():
    with pytest.raises(UsageError, match="accumulation is 65 and batch is 64; expected at most batch"):
        ClosedFormRecipe(accumulation=65)
    with pytest.raises(UsageError, match=r"precision is .*fp8.*; expected one of float32, bfloat16, float16"):
        ClosedFormRecipe(precision="fp8")
