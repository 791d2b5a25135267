"""A bundle's plans from end to end on an emulated GPU: built, loaded, asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import Bundle, BundleError, HardwareError, ParityError, Runtime, UsageError
from fllm_export.cli.main import main
from fllm_export.engines.tensorrt.encoder import TensorRtEncoder
from fllm_export.engines.tensorrt.plan import read_plans
from fllm_export.plans.build import add_plans
from fllm_export.plans.options import PlanOptions

pytest.importorskip("torch", reason="torch builds the bundle")

Emulate = Callable[..., Any]


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


@pytest.mark.parametrize("rtx", [False, True])
def test_texts_go_in_and_the_native_engines_users_come_out(
    emulate: Emulate, copy: Path, item_texts: list[str], rtx: bool
) -> None:
    cuda, trt = emulate(rtx=rtx)
    library: Any = "tensorrt_rtx" if rtx else "tensorrt"
    add_plans(copy, PlanOptions(("sm89",) if rtx else (), "fp16", library, max_batch=4, unchecked=True), item_texts)
    Bundle.load(copy).verify()
    runtime = Runtime.open(copy, engine="tensorrt")
    assert (runtime.users.engine, runtime.encoder) == ("tensorrt", "tensorrt")
    for _ in range(3):
        found = runtime.topk(item_texts[:6], 20)
    z = runtime.encode(item_texts[:6])
    expected = Runtime.open(copy).users.topk(z, 20)
    np.testing.assert_array_equal(found.user_ids, expected.user_ids)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=1e-5, atol=1e-5)
    whole = Runtime.open(copy).encode(item_texts[:6])
    assert not np.array_equal(z, whole)  # fp16
    np.testing.assert_allclose(z, whole, atol=2e-2 * np.abs(whole).max())
    assert cuda.launches > 0
    assert trt.runs > 0


def test_a_head_whose_layers_are_not_listed_has_to_be_accepted(
    emulate: Emulate, copy: Path, item_texts: list[str]
) -> None:
    emulate()
    with pytest.raises(ParityError, match=r"lists no layers of the head int8_limbs for sm90.*--unchecked"):
        add_plans(copy, PlanOptions(), item_texts)
    assert read_plans(copy / "head" / "plans") == []
    assert add_plans(copy, PlanOptions(unchecked=True), item_texts)[1].fused is None


def test_the_full_library_keeps_its_timing_cache(emulate: Emulate, copy: Path) -> None:
    emulate()
    for _ in range(2):
        add_plans(copy, PlanOptions(unchecked=True))
    (cache,) = (copy / "head" / "plans").glob("timing-*.cache")
    # Two plans, each built twice, each from what the one before left.
    assert cache.read_bytes() == b"...."
    assert {plan.architecture for plan in read_plans(copy / "encoder" / "plans")} == {"sm90"}


def test_an_encoder_can_be_chosen_by_itself(
    emulate: Emulate, copy: Path, item_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate()
    add_plans(copy, PlanOptions(precision="fp8", unchecked=True), item_texts)
    add_plans(copy, PlanOptions(precision="fp16", unchecked=True))
    runtime = Runtime.open(copy, encoder="tensorrt-fp8")
    assert (runtime.users.engine, runtime.encoder) == ("native", "tensorrt-fp8")
    fp8 = runtime.encode(item_texts[:2])
    monkeypatch.setenv("FLLM_ENCODER", "tensorrt")
    assert not np.array_equal(Runtime.open(copy).encode(item_texts[:2]), fp8)
    monkeypatch.setenv("FLLM_ENCODER", "cpu")
    assert Runtime.open(copy, engine="tensorrt").encoder == "cpu"
    with pytest.raises(HardwareError, match=r"no plan that is wanted.*--precision bf16"):
        Runtime.open(copy, encoder="tensorrt-bf16")
    with pytest.raises(UsageError, match="encoder is 'npu'; expected one of cpu"):
        Runtime.open(copy, encoder="npu")


def test_the_command_line_asks_plans(emulate: Emulate, copy: Path, item_texts: list[str]) -> None:
    emulate()
    done = CliRunner().invoke(main, ["plan", str(copy), "--unchecked", "--json"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["query", str(copy), item_texts[0], "--engine", "tensorrt", "-k", "5", "--json"])
    assert done.exit_code == 0, done.output
    z = Runtime.open(copy, engine="tensorrt").encode(item_texts[:1])
    expected = Runtime.open(copy).users.topk(z, 5).user_ids[0].tolist()
    assert [user["user_id"] for user in json.loads(done.stdout)["items"][0]["users"]] == expected
    done = CliRunner().invoke(main, ["query", str(copy), item_texts[0], "--engine", "tensorrt", "-k", "300"])
    assert done.exit_code == 2
    assert "plan BUNDLE -k 300" in done.output


def test_texts_that_a_plan_does_not_take_are_refused(emulate: Emulate, copy: Path) -> None:
    emulate()
    bundle = Bundle.load(copy)
    add_plans(copy, PlanOptions(max_batch=1, unchecked=True))
    plans, dim = copy / "encoder" / "plans", bundle.manifest.dim
    encoder = TensorRtEncoder(plans, None, dim)
    tokens = np.ones((1, encoder.most_tokens + 1), np.int64)
    with pytest.raises(UsageError, match=r"1 items of \d+ tokens were given to the plan"):
        encoder.run(tokens, tokens)
    with pytest.raises(BundleError, match=f"gives vectors of {dim} numbers; expected {dim + 1}"):
        TensorRtEncoder(plans, None, dim + 1)


def test_without_tensorrt_or_a_gpu_there_is_exit_6(
    emulate: Emulate, copy: Path, monkeypatch: pytest.MonkeyPatch, item_texts: list[str]
) -> None:
    import sys

    emulate()
    add_plans(copy, PlanOptions(unchecked=True))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for choice in (["--engine", "tensorrt"], ["--encoder", "tensorrt"]):
        done = CliRunner().invoke(main, ["query", str(copy), item_texts[0], *choice])
        assert done.exit_code == 6
        assert "TensorRT cannot be loaded" in done.output
