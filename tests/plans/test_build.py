"""Plans join a bundle without harm to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fllm_export import Bundle, BundleError, HardwareError, Runtime, UsageError
from fllm_export.cli.main import main
from fllm_export.engines.tensorrt.library import open_library
from fllm_export.engines.tensorrt.plan import check_plan, read_plans
from fllm_export.graphs.precision_names import Precision
from fllm_export.plans import draft
from fllm_export.plans.build import add_plans
from fllm_export.plans.options import PlanOptions


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.mark.usefixtures("rtx")
def test_plans_are_built_recorded_and_checked(copy: Path, item_texts: list[str]) -> None:
    options = PlanOptions(("sm89", "sm120"), "fp16", "tensorrt_rtx")
    plans = add_plans(copy, options, item_texts)
    assert [(plan.model, plan.architecture) for plan in plans] == [
        ("encoder/model.onnx", "sm89"),
        ("encoder/model.onnx", "sm120"),
        ("head/int8_limbs.onnx", "sm89"),
        ("head/int8_limbs.onnx", "sm120"),
    ]
    assert [plan.fused for plan in plans] == [None, None, True, True]
    bundle = Bundle.load(copy)
    bundle.verify()
    assert f"head/plans/{plans[2].file}" in bundle.manifest.files
    assert sorted(read_plans(copy / "head" / "plans"), key=lambda plan: plan.file) == sorted(
        plans[2:], key=lambda plan: plan.file
    )
    library = open_library("tensorrt_rtx")
    check_plan(copy / "head" / "plans", plans[2], library, "sm89", "rebuild")
    with pytest.raises(HardwareError, match=r"built for sm89; expected sm86, the GPU here. Run: rebuild"):
        check_plan(copy / "head" / "plans", plans[2], library, "sm86", "rebuild")
    assert len(Runtime.open(copy).topk(item_texts[:1], 5).user_ids[0]) == 5


@pytest.mark.usefixtures("rtx")
def test_a_kernel_is_built_without_tf32(
    kernel_bundle: Bundle, item_texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(kernel_bundle.path, tmp_path / "bundle"))
    allowed: dict[str, bool] = {}
    build = draft.build_plan

    def recorded(library: Any, model: Path, *given: Any, tf32: bool, **named: Any) -> Any:
        allowed[model.stem] = tf32
        return build(library, model, *given, tf32=tf32, **named)

    monkeypatch.setattr(draft, "build_plan", recorded)
    plans = add_plans(bundle, PlanOptions(("sm89",), "fp16", "tensorrt_rtx"), item_texts)
    assert allowed == {"encoder": False, "int8_limbs": True}
    assert plans[0].cosine is not None
    assert plans[0].cosine > 0.9999


@pytest.mark.usefixtures("rtx")
def test_other_choices_stand_beside_the_first(copy: Path, item_texts: list[str]) -> None:
    add_plans(copy, PlanOptions(("sm89",), "fp16", "tensorrt_rtx", unchecked=True))
    add_plans(copy, PlanOptions(("sm89",), "fp8", "tensorrt_rtx", k=4000, max_batch=1), item_texts)
    names = [
        plan.file.split("-tensorrt")[0] for part in ("encoder", "head") for plan in read_plans(copy / part / "plans")
    ]
    assert names == ["fp16", "fp8", "int8_limbs-k4000", "int8_limbs"]
    assert (copy / "head" / "int8_limbs-k4000.onnx").is_file()
    Bundle.load(copy).verify()


@pytest.mark.usefixtures("rtx")
def test_a_refusal_leaves_the_bundle_as_it_was(copy: Path) -> None:
    before = (copy / "manifest.json").read_bytes()
    for options, message in (
        (PlanOptions(("sm90",), library="tensorrt_rtx", unchecked=True), "does not build for sm90"),
        (PlanOptions(("sm89",), "fp8", "tensorrt_rtx"), "without item texts"),
    ):
        with pytest.raises(UsageError, match=message):
            add_plans(copy, options)
    assert (copy / "manifest.json").read_bytes() == before
    Bundle.load(copy).verify()


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("rtx")
def test_nothing_changes_before_the_last_plan_is_built(
    copy: Path, item_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_plans(copy, PlanOptions(("sm89",), library="tensorrt_rtx", unchecked=True, max_batch=8))
    before = all_bytes(copy)

    def fail(*arguments: object) -> None:
        raise HardwareError("the head cannot be built")

    with monkeypatch.context() as patched:
        patched.setattr("fllm_export.plans.build.head_profiles", fail)
        with pytest.raises(HardwareError):
            add_plans(copy, PlanOptions(("sm89",), library="tensorrt_rtx", unchecked=True), item_texts)
    assert all_bytes(copy) == before
    assert not list(copy.parent.glob(".plans.*"))
    again = add_plans(copy, PlanOptions(("sm89", "sm89"), library="tensorrt_rtx", unchecked=True), item_texts)
    assert [(plan.max_batch, plan.k) for plan in again] == [(32, None), (32, 256)]
    assert again[0].cosine is not None
    assert again[0].cosine > 0.9999


@pytest.mark.usefixtures("rtx")
def test_plans_are_not_built_from_what_is_damaged_nor_vouch_for_it(copy: Path) -> None:
    options = PlanOptions(("sm89",), library="tensorrt_rtx", unchecked=True)
    stray = copy / "stray.txt"
    stray.write_text("not the bundle's")
    add_plans(copy, options)
    assert "stray.txt" not in Bundle.load(copy).manifest.files
    card = copy / "README.md"
    card.write_text(card.read_text() + "junk")
    add_plans(copy, options)
    with pytest.raises(BundleError, match=r"README\.md"):
        Bundle.load(copy).verify()
    model = copy / "encoder" / "model.onnx"
    whole = model.read_bytes()
    for damage in (whole[:1000], whole[:-1] + b"x", None):
        model.unlink()
        if damage is not None:
            model.write_bytes(damage)
        with pytest.raises(BundleError, match=r"model\.onnx"):
            add_plans(copy, options)
        model.touch()


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("target", "precision"), [("sm75", "fp16"), ("sm75", "bf16"), ("sm80", "fp8"), ("sm86", "fp8")]
)
def test_gpus_that_do_not_multiply_in_a_precision_are_refused(copy: Path, target: str, precision: Precision) -> None:
    options = PlanOptions((target,), precision, "tensorrt_rtx")
    with pytest.raises(UsageError, match=f"an encoder in {precision} was asked for on {target}; expected sm8"):
        add_plans(copy, options, ["a text"])


@pytest.mark.usefixtures("rtx")
def test_the_command_line_builds_plans_of_a_bundle(copy: Path, item_texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_text("\n".join(item_texts))
    arguments = ["plan", str(copy), "--library", "tensorrt_rtx", "--target", "sm89", "--json"]
    done = CliRunner().invoke(main, [*arguments, "--calibration", str(tmp_path / "items.txt")])
    assert done.exit_code == 0, done.output
    encoder, head = json.loads(done.stdout)["plans"]
    assert (encoder["cosine"] > 0.9999, head["fused"]) == (True, True)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("precision", "texts", "why"),
    [("fp16", False, "no item texts were given"), ("bf16", True, "a CPU does not run bf16")],
)
def test_an_encoder_that_cannot_be_compared_has_to_be_accepted(
    copy: Path, item_texts: list[str], tmp_path: Path, precision: str, texts: bool, why: str
) -> None:
    (tmp_path / "items.txt").write_text("\n".join(item_texts))
    before = all_bytes(copy)
    arguments = ["plan", str(copy), "--library", "tensorrt_rtx", "--target", "sm89", "--precision", precision]
    arguments += ["--calibration", str(tmp_path / "items.txt")] if texts else []
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 3
    assert f"cannot be compared with the float32 one: {why}" in done.output
    assert "--unchecked" in done.output
    assert all_bytes(copy) == before
    done = CliRunner().invoke(main, [*arguments, "--unchecked"])
    assert done.exit_code == 0, done.output
    assert "unchecked: not compared" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "BUNDLE", "-k", "0"], "k of the head plan is 0; expected from 1 to 65536"),
        (["plan", "BUNDLE", "--batch", "0"], "max_batch is 0"),
        (["plan", "BUNDLE", "--precision", "int8"], "--precision"),
        (["build", "BUNDLE", "--calibration", "x"], "--out"),
        (["build", "EMPTY", "-o", "x"], "--calibration"),
        (["build", "EMPTY", "-o", "x", "--calibration", "y", "--target", "sm89"], "--target"),
    ],
)
def test_command_lines_that_make_no_sense(copy: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    paths = {"BUNDLE": str(copy), "EMPTY": str(tmp_path / "empty")}
    done = CliRunner().invoke(main, [paths.get(part, part) for part in arguments])
    assert done.exit_code == 2
    assert message in done.output


def test_what_is_not_a_bundle_gets_no_plans(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["plan", str(tmp_path)])
    assert done.exit_code == 4
    assert "holds no manifest.json" in done.output
