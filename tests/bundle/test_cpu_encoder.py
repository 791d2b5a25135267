"""A bundle whose encoder has integer weights on CPUs: judged, recorded and served as such; GPUs keep float32."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import Bundle, ParityError, Runtime, UsageError, build
from fllm_export.bundle.bundle import CPU_ENCODER_REPORT, ENCODER_REPORT, PARITY_REPORT
from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.cli.main import main

MODEL, CPU_MODEL = "encoder/model.onnx", "encoder/cpu.onnx"


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: object) -> Checkpoint:
    return tiny_checkpoint("bert", mapper="kernel", users=400, features=("normalize",))  # type: ignore[operator]


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, item_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("int8") / "bundle"
    return build(checkpoint, out, calibration=item_texts, min_recall=0.5, k=20, encoder_precision="int8")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_recall_is_that_of_the_encoder_that_is_served(bundle: Bundle, item_texts: list[str]) -> None:
    report = bundle.report(PARITY_REPORT)
    plain = report["encoder"]["recall_of_fp32_encoder"]
    assert report["encoder"]["precision"] == "int8"
    assert plain.keys() == report["parity"]["recall"].keys()
    served, full = (Runtime.open(bundle.path, encoder=name) for name in ("cpu", "cpu-fp32"))
    near, exact = (runtime.encode(item_texts) for runtime in (served, full))
    assert not np.array_equal(near, exact)
    shared = [
        len(np.intersect1d(a, b)) / 20
        for a, b in zip(served.topk(item_texts, 20).user_ids, full.topk(item_texts, 20).user_ids, strict=True)
    ]
    # Against the checkpoint the two differ by what they differ from one another, at most.
    assert abs(plain["20"] - bundle.parity().recall[20]) <= 1 - np.mean(shared) + 1e-9


def test_it_is_recorded(bundle: Bundle) -> None:
    assert bundle.manifest.provenance["encoder_precision"] == "int8"
    assert {MODEL, CPU_MODEL} <= bundle.manifest.files.keys()
    bundle.verify()
    found = bundle.report(CPU_ENCODER_REPORT)
    assert found["matmul_integer"] > 0 < found["matmul_nbits"]
    card = (bundle.path / "README.md").read_text()
    assert f"int8: {found['matmul_integer']} MatMulInteger and {found['matmul_nbits']} MatMulNBits" in card.replace(
        ", 7 bits for CPUs without VNNI", ""
    )
    plain = bundle.report(PARITY_REPORT)["encoder"]["recall_of_fp32_encoder"]["20"]
    for page in (card, (bundle.path / "reports" / "report.html").read_text()):
        assert f"With the fp32 encoder and the same table, recall@20 is {plain:.4f}." in page


def test_the_command_says_what_the_encoder_costs(
    checkpoint: Checkpoint, bundle: Bundle, item_texts: list[str], tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "checkpoint")
    (tmp_path / "items.txt").write_text("\n".join(item_texts))
    given = ["build", tmp_path / "checkpoint", "-o", tmp_path / "bundle", "--calibration", tmp_path / "items.txt"]
    given += ["--min-recall", 0.5, "-k", 20, "--encoder-precision", "int8"]
    result = CliRunner().invoke(main, list(map(str, given)))
    assert result.exit_code == 0, result.output
    plain = bundle.report(PARITY_REPORT)["encoder"]["recall_of_fp32_encoder"]["20"]
    assert f"With the fp32 encoder and the same table, recall@20 is {plain:.4f}." in result.stdout


def test_plans_are_built_from_the_float32_encoder(
    bundle: Bundle, checkpoint: Checkpoint, item_texts: list[str], tmp_path: Path
) -> None:
    plain = build(checkpoint, tmp_path / "bundle", calibration=item_texts, min_recall=0.5, k=20)
    assert digest(plain.path / MODEL) == digest(bundle.path / MODEL)
    assert not (plain.path / CPU_MODEL).exists()
    assert "encoder" not in plain.report(PARITY_REPORT)
    assert "| encoder on CPUs | fp32 |" in (plain.path / "README.md").read_text()


def test_another_precision_is_another_bundle(checkpoint: Checkpoint, item_texts: list[str], tmp_path: Path) -> None:
    arguments = {"calibration": item_texts, "k": 20, "encoder_precision": "int4"}
    with pytest.raises(ParityError, match=r"choose a finer codec \(--quant\) or encoder"):
        build(checkpoint, tmp_path / "bundle", min_recall=1.0, **arguments)
    staged = tmp_path / "bundle.partial"
    assert (staged / CPU_MODEL).is_file()
    before = (staged / ENCODER_REPORT).stat().st_mtime_ns
    narrow = build(checkpoint, tmp_path / "bundle", min_recall=0.1, **arguments)
    assert narrow.report(CPU_ENCODER_REPORT)["precision"] == "int4"
    assert (narrow.path / ENCODER_REPORT).stat().st_mtime_ns == before
    again = build(checkpoint, tmp_path / "bundle", min_recall=0.1, **{**arguments, "encoder_precision": "fp32"})
    assert not (again.path / CPU_MODEL).exists()
    assert again.table().layout.generation == 2


def test_an_interrupted_build_forgets_the_other_precision(
    checkpoint: Checkpoint, item_texts: list[str], tmp_path: Path
) -> None:
    arguments = {"calibration": item_texts, "k": 20}
    with pytest.raises(ParityError):
        build(checkpoint, tmp_path / "bundle", min_recall=1.0, encoder_precision="int4", **arguments)
    plain = build(checkpoint, tmp_path / "bundle", min_recall=0.5, **arguments)
    assert not (plain.path / CPU_MODEL).exists()
    assert CPU_ENCODER_REPORT not in plain.manifest.files


def test_there_is_no_other_precision(checkpoint: Checkpoint, item_texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="encoder_precision is 'int3'; expected one of fp32, int8, int4"):
        build(checkpoint, tmp_path / "b", calibration=item_texts, k=20, encoder_precision="int3")  # type: ignore[arg-type]
