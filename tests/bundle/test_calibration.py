from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import Bundle, Checkpoint, ParityError, Runtime, UsageError, build
from fllm_export.bundle import calibration
from fllm_export.bundle.job import PARITY_TEXTS, Job, Options
from fllm_export.bundle.pipeline import run
from fllm_export.bundle.steps import STEPS
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.transform import Transform
from fllm_export.checkpoint.users import UserRows
from fllm_export.files import sha256_file
from fllm_export.progress import silent
from fllm_export.table.options import TableOptions

WORDS = ("graphs", "films", "genes", "the sea", "jazz", "protein folding", "shoes", "networks", "yeast", "novels")
TEXTS = [f"a paper on {a} and {b} number {i}" for i in range(5) for a in WORDS for b in WORDS]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """A small checkpoint of 16 dimensions, whose users differ in 6 directions above all."""
    made = tiny_checkpoint("llama", users=300)
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((300, 6)) @ generator.standard_normal((6, made.spec.dim))
    rows += 0.01 * generator.standard_normal(rows.shape)
    users = UserRows.from_array(rows.astype(np.float32), bias=generator.standard_normal(300).astype(np.float32))
    return Checkpoint(made.spec, made.base, made.adapter, made.mapper, users, made.features)


@pytest.fixture(scope="module")
def cut(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("cut") / "bundle"
    return build(checkpoint, path, calibration=TEXTS, quant="fp16", k=20, min_recall=0.95, dim="auto")


def job_of(checkpoint: Checkpoint, **options: Any) -> Job:
    chosen = {"quant": "fp16", "dim": 8, **options}
    rounding = chosen.get("rounding", "auto")
    made = Options(TableOptions(chosen["quant"]), 0.5, 20, "torch", 2, chosen["dim"], rounding=rounding)
    return Job.prepare(checkpoint, chosen.get("texts", TEXTS), made, silent)


def test_auto_finds_the_directions_that_matter(checkpoint: Checkpoint, cut: Bundle) -> None:
    report = cut.calibration()
    assert report is not None
    dim = report["dim"]["chosen"]
    assert 5 <= dim <= 8
    assert cut.manifest.dim == cut.table().layout.dim == dim
    recalls = {int(m): recall for m, recall in report["recall_by_dim"].items()}
    assert recalls[dim] >= 0.975
    assert max(recall for m, recall in recalls.items() if m < dim) < 0.975
    assert report["texts"] == len(TEXTS) - PARITY_TEXTS
    assert cut.parity().recall[20] == pytest.approx(recalls[dim], abs=0.01)
    cut.verify()


def test_the_bundle_keeps_what_was_measured_and_says_so(cut: Bundle) -> None:
    origin, report = cut.manifest.provenance["calibration"], cut.calibration()
    assert report is not None
    moments = Moments.load(cut.path / calibration.MOMENTS)
    assert moments.count == origin["texts"] == report["texts"]
    assert origin["moments_sha256"] == sha256_file(cut.path / calibration.MOMENTS)
    assert {calibration.MOMENTS, calibration.TRANSFORM, "reports/calibration.json"} <= set(cut.manifest.files)
    card, page = (cut.path / "README.md").read_text(), (cut.path / "reports" / "report.html").read_text()
    recall = report["recall_by_dim"][str(report["dim"]["chosen"])]
    for text in (card, page):
        assert f"{report['dim']['chosen']} of 16 (chosen by --dim auto); recall@20 {recall:.4f}" in text
    assert origin["moments_sha256"] in card


def test_the_kept_transform_makes_rows_of_new_users(checkpoint: Checkpoint, cut: Bundle) -> None:
    kept = Transform.load(cut.path / calibration.TRANSFORM)
    stored = {int(i): row for ids, rows in cut.table().decoded() for i, row in zip(ids, rows, strict=True)}
    ids, rows, _ = next(checkpoint.users.labelled_chunks())
    np.testing.assert_allclose(stored[int(ids[7])], kept.rows(rows)[7], rtol=2e-3, atol=2e-3)
    z = Runtime.open(cut.path).encode(TEXTS[:2])
    whole = job_of(checkpoint).reference.item_vectors(TEXTS[:2])
    np.testing.assert_allclose(z, kept.item_vectors(whole), rtol=1e-3, atol=1e-4)


def test_moments_leave_the_texts_of_parity_out(checkpoint: Checkpoint) -> None:
    job = job_of(checkpoint)
    assert sorted(job.sample + job.others) == sorted(TEXTS)
    assert sorted(job.moment_texts) == sorted(job.others)
    expected = Moments.of([job.reference.item_vectors(job.others)])
    found = Moments.of(calibration._item_vectors(job))
    np.testing.assert_allclose(found.second, expected.second, rtol=1e-4, atol=1e-6)


def test_an_interrupted_build_does_not_encode_again(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> list[Path]:
        raise KeyboardInterrupt

    for name in ("encoder", "parity"):
        steps = [replace(step, work=interrupt) if step.name == name else step for step in STEPS]
        with pytest.raises(KeyboardInterrupt):
            run(job_of(checkpoint, quant="int8"), tmp_path / "bundle", steps)
        monkeypatch.setattr(calibration, "_item_vectors", interrupt)
    stages: list[str] = []
    arguments = {"calibration": TEXTS, "quant": "int8", "k": 20, "min_recall": 0.5, "dim": 8}
    bundle = build(checkpoint, tmp_path / "bundle", **arguments, progress=lambda stage, *_: stages.append(stage))
    assert {f"{name} (done before)" for name in ("moments", "transform", "encoder", "head", "users")} <= set(stages)
    assert bundle.table().layout.dim == 8
    before = bundle.manifest
    assert build(checkpoint, tmp_path / "bundle", **arguments).manifest == before


@pytest.mark.parametrize("damaged", [False, True])
def test_interrupted_moments_resume_with_the_same_bits(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    monkeypatch.setattr(calibration, "_TEXTS_AT_ONCE", 64)
    monkeypatch.setattr(calibration, "_SAVE_EVERY_S", 0.0)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    calibration.moments(job_of(checkpoint), whole)

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "calibration vectors" and done >= 128:
            raise KeyboardInterrupt

    job = job_of(checkpoint)
    job.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        calibration.moments(job, cut)
    (kept,) = cut.glob(".moments-*")
    if damaged:
        kept.write_bytes(kept.read_bytes()[:-1])
    again, encoded = job_of(checkpoint), []
    again.progress = lambda stage, done, total: encoded.append(done) if stage == "calibration vectors" else None
    (written,) = calibration.moments(again, cut)
    assert encoded[0] == (0 if damaged else 128)
    assert encoded[-1] == len(TEXTS) - PARITY_TEXTS
    assert written.read_bytes() == (whole / calibration.MOMENTS).read_bytes()
    calibration.forget_sums(again, cut)
    assert [path.name for path in cut.iterdir()] == ["calibration"]


def test_another_choice_builds_again_and_leaves_nothing_behind(checkpoint: Checkpoint, tmp_path: Path) -> None:
    arguments = {"calibration": TEXTS, "quant": "fp16", "k": 20, "min_recall": 0.5}
    out = tmp_path / "bundle"
    assert build(checkpoint, out, dim=8, **arguments).table().layout.dim == 8
    partial = tmp_path / "bundle.partial"
    shutil.copytree(out, partial)
    plain = build(checkpoint, out, **arguments)
    assert plain.table().layout.dim == 16
    assert plain.calibration() is None
    assert plain.manifest.provenance["calibration"] is None
    assert not (out / "calibration").exists()


def test_the_key_of_a_build_holds_what_decides_the_transform(checkpoint: Checkpoint) -> None:
    keys = {
        (quant, dim, count): job_of(checkpoint, quant=quant, dim=dim, texts=TEXTS[:count]).build_key
        for quant in ("fp16", "int8")
        for dim in (None, 8, 9, "auto")
        for count in (400, 500)
    }
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 16}, r"dim is 16 and the checkpoint's user rows have 16 dimensions; expected a dimension below 16"),
        ({"dim": 0}, "dim is 0"),
        ({"dim": "all"}, "dim is 'all'; expected an integer of 1 or more, or auto"),
        ({"dim": True}, "dim is True"),
        (
            {"dim": 8, "calibration": TEXTS[:263]},
            r"7 texts are left beyond those that are kept for parity; expected at least 8, one for each",
        ),
        ({"dim": "auto", "calibration": TEXTS[:271]}, r"15 texts are left .*expected at least 16, .*whole catalogue"),
        ({"rounding": "data", "calibration": TEXTS[:271]}, r"15 texts are left .*expected at least 16"),
        ({"rounding": "data", "quant": "fp16"}, "rounding is data and quant is fp16; expected a codec of few bits"),
        ({"rounding": "best"}, "rounding is 'best'; expected one of auto, nearest, data"),
    ],
)
def test_what_cannot_be_cut_is_refused(checkpoint: Checkpoint, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(checkpoint, tmp_path / "bundle", **{"calibration": TEXTS, "k": 20, **options})
    assert not list(tmp_path.iterdir())


def test_auto_that_finds_nothing_is_an_error(tiny_checkpoint: Callable[..., Checkpoint], tmp_path: Path) -> None:
    full = tiny_checkpoint("llama", users=300)
    with pytest.raises(ParityError, match=r"no dimension below 16 has recall@20 1 against .*; 13 has 0\.\d+"):
        build(full, tmp_path / "bundle", calibration=TEXTS, quant="fp16", k=20, min_recall=1.0, dim="auto")


def test_a_dimension_above_the_rank_is_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    flat = UserRows.from_array(np.outer(np.arange(1, 301), np.arange(1, 17)).astype(np.float32))
    low = Checkpoint(checkpoint.spec, checkpoint.base, checkpoint.adapter, checkpoint.mapper, flat, checkpoint.features)
    with pytest.raises(UsageError, match=r"dim is 3 and the scores of the user rows have rank 1; expected at most 1"):
        build(low, tmp_path / "bundle", calibration=TEXTS, k=20, dim=3)


@pytest.mark.parametrize(
    ("quant", "dim", "rounding", "texts", "expected"),
    [
        ("int8", None, "auto", 500, ("nearest", None, False, False)),
        ("int8", 8, "auto", 500, ("data", None, True, True)),
        ("int8", 8, "nearest", 500, ("nearest", None, True, True)),
        ("fp16", 8, "auto", 500, ("nearest", None, True, True)),
        ("int4", None, "auto", 500, ("data", None, True, True)),
        ("int4", None, "auto", 271, ("nearest", 15, False, False)),
        ("int2", None, "auto", 271, ("nearest", 15, False, True)),
        ("int2", None, "nearest", 500, ("nearest", None, False, True)),
    ],
)
def test_what_auto_comes_to(
    checkpoint: Checkpoint, quant: str, dim: int | None, rounding: str, texts: int, expected: tuple[Any, ...]
) -> None:
    choices = job_of(checkpoint, quant=quant, dim=dim, rounding=rounding, texts=TEXTS[:texts]).choices
    assert (choices.rounding, choices.too_few, choices.measured, choices.transformed) == expected


def test_rounding_by_data_ranks_better_and_is_on_record(checkpoint: Checkpoint, tmp_path: Path) -> None:
    arguments = {"calibration": TEXTS, "quant": "int4", "k": 20, "min_recall": 0.1}
    nearest = build(checkpoint, tmp_path / "bundle", rounding="nearest", **arguments)
    assert nearest.calibration() is None
    plain = nearest.parity().score_error_rms
    by_data = build(checkpoint, tmp_path / "bundle", **arguments)
    assert by_data.parity().score_error_rms < plain
    assert by_data.manifest.provenance["calibration"]["rounding"] == "data"
    assert "by data" in (by_data.path / "README.md").read_text()
    assert by_data.table().layout.dim == 16
    assert build(checkpoint, tmp_path / "bundle", **arguments).manifest == by_data.manifest


def test_codecs_of_few_values_are_rotated_without_any_text(checkpoint: Checkpoint, tmp_path: Path) -> None:
    job = job_of(checkpoint, quant="int2", dim=None, texts=TEXTS[:271])
    (tmp_path / "calibration").mkdir()
    assert calibration.moments(job, tmp_path) == []
    calibration.transform(job, tmp_path)
    calibration.take_up(job, tmp_path)
    assert job.transform is not None
    assert job.metric is None
    np.testing.assert_allclose(job.transform.items @ job.transform.users.T, np.eye(16), atol=1e-12)
    report = json.loads((tmp_path / "reports" / "calibration.json").read_text())
    told = calibration.calibration_facts(report)
    assert told == {"rounding": "to the nearest: the 15 texts beyond those of parity are fewer than dimensions"}


def test_the_report_of_a_build_is_json(cut: Bundle) -> None:
    assert json.loads((cut.path / "reports" / "build.json").read_text())["options"]["dim"] == "auto"
