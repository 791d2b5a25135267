from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fllm_export import (
    BudgetError,
    Bundle,
    Checkpoint,
    ParityError,
    Runtime,
    UsageError,
    build,
)
from fllm_export.bundle import pipeline, steps
from fllm_export.bundle.job import Job, Options
from fllm_export.bundle.ledger import LOCK_NAME
from fllm_export.bundle.pipeline import run
from fllm_export.bundle.steps import STEPS, Step
from fllm_export.calibration.transform import Transform
from fllm_export.engines.registry import ENGINES
from fllm_export.progress import silent
from fllm_export.table.options import TableOptions

TEXTS = [f"a paper on {topic} number {i}" for i in range(12) for topic in ("graphs", "films", "genes")]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    return tiny_checkpoint("llama", users=400)


@pytest.fixture
def built(tiny_bundle: Bundle) -> Bundle:
    return tiny_bundle


@pytest.fixture(scope="module")
def synced() -> Iterator[set[int]]:
    """The inodes of all files and directories that were brought to the disk."""
    inodes: set[int] = set()
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        sync(descriptor)
        inodes.add(os.fstat(descriptor).st_ino)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", recorded)
        yield inodes


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, synced: set[int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build leaves that was interrupted after its longest step, the export."""
    path = tmp_path_factory.mktemp("exported") / "bundle"
    interrupted_at("head", checkpoint, path)
    return path.with_name("bundle.partial")


@pytest.fixture
def out(exported: Path, tmp_path: Path) -> Path:
    """Where to build; the exported encoder lies there already, so that only what is tested takes time."""
    shutil.copytree(exported, tmp_path / "bundle.partial")
    return tmp_path / "bundle"


def interrupt(*_: object) -> list[Path]:
    raise KeyboardInterrupt


def interrupted_at(name: str, checkpoint: Checkpoint, path: Path) -> None:
    job = Job.prepare(checkpoint, TEXTS, Options(TableOptions(), 0.9, 100, "torch", 2), silent)
    with pytest.raises(KeyboardInterrupt):
        run(job, path, [replace(step, work=interrupt) if step.name == name else step for step in STEPS])


def reference_scores(checkpoint: Checkpoint, texts: list[str]) -> np.ndarray:
    from fllm_export.checkpoint.merge import load_unmerged

    reference = load_unmerged(checkpoint)
    rows = np.concatenate(list(reference.users.chunks()))
    return reference.item_vectors(texts).astype(np.float64) @ rows.T.astype(np.float64)


def test_the_bundle_answers_as_the_checkpoint(checkpoint: Checkpoint, built: Bundle) -> None:
    texts = TEXTS[:5]
    scores = reference_scores(checkpoint, texts)
    answer = Runtime.open(built.path).topk(texts, 10)
    for item in range(5):
        expected = scores[item][answer.user_ids[item]]
        np.testing.assert_allclose(answer.scores[item], expected, atol=0.02 * scores.std())
        assert answer.user_ids[item, 0] in np.argsort(-scores[item])[:3]
    log_normaliser = np.log(np.exp(scores).sum(1))
    np.testing.assert_allclose(answer.logsumexp, log_normaliser, atol=0.05 * scores.std())


def test_both_engines_give_the_same_bits(built: Bundle) -> None:
    native, reference = (Runtime.open(built.path, engine=name) for name in ("onnxruntime", "numpy"))
    for mode in ("topk", "sample"):
        a, b = (runtime.topk(TEXTS, 20, mode=mode, seed=5) for runtime in (native, reference))
        np.testing.assert_array_equal(a.user_ids, b.user_ids)
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_allclose(a.logsumexp, b.logsumexp, rtol=1e-6)


def test_parity_report_and_card_tell_the_same(built: Bundle) -> None:
    parity = built.parity()
    assert parity.texts == len(TEXTS)
    assert 0.9 <= parity.recall[parity.k] <= 1
    assert parity.worst["text"] in TEXTS
    card = (built.path / "README.md").read_text()
    assert f"| {parity.k} | {parity.recall[parity.k]:.4f} |" in card
    assert built.manifest.provenance["checkpoint_sha256"] in card


def test_the_same_inputs_are_not_built_again(checkpoint: Checkpoint, built: Bundle) -> None:
    before = (built.path / "manifest.json").stat().st_mtime_ns
    stages: list[str] = []
    again = build(
        checkpoint, built.path, calibration=TEXTS, min_recall=0.9, progress=lambda stage, *_: stages.append(stage)
    )
    assert again.manifest == built.manifest
    assert (built.path / "manifest.json").stat().st_mtime_ns == before
    assert set(stages) == {"fingerprint"}


def test_all_of_a_bundle_is_on_the_disk_before_it_is_published(
    checkpoint: Checkpoint, exported: Path, out: Path, synced: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = {path.relative_to(exported) for path in exported.rglob("*")}
    assert not [path for path in exported.rglob("*") if path.stat().st_ino not in synced and path.name != LOCK_NAME]
    move = pipeline._move_into_place
    missing: list[Path] = []

    def checked(staging: Path, output: Path) -> None:
        made = {path.relative_to(staging) for path in staging.rglob("*")} - copied
        missing.extend(path for path in made if (staging / path).stat().st_ino not in synced)
        move(staging, output)

    monkeypatch.setattr(pipeline, "_move_into_place", checked)
    build(checkpoint, out, calibration=TEXTS, min_recall=0.9)
    assert missing == []
    assert out.parent.stat().st_ino in synced


def test_a_step_can_be_put_into_a_build(checkpoint: Checkpoint, out: Path) -> None:
    def sweep(job: Job, staging: Path) -> list[Path]:
        calls.append(job)
        (staging / "reports" / "sweep.json").write_text("{}")
        return [staging / "reports" / "sweep.json"]

    calls: list[Job] = []
    job = Job.prepare(checkpoint, TEXTS, Options(TableOptions(), 0.9, 100, "torch", 2), silent)
    extra = Step("sweep", lambda job: job.key("sweep", job.texts.sha256), sweep)
    for end in ([replace(STEPS[-1], work=interrupt)], STEPS[-1:]):
        with contextlib.suppress(KeyboardInterrupt):
            run(job, out, [*STEPS[:-1], extra, *end])
    assert calls == [job]
    assert "reports/sweep.json" in Bundle.load(out).manifest.files


def test_a_transform_is_folded_into_the_encoder_and_applied_to_the_rows(checkpoint: Checkpoint, tmp_path: Path) -> None:
    job = Job.prepare(checkpoint, TEXTS, Options(TableOptions("fp32"), 0.9, 10, "torch", 2), silent)
    plain_key, dim = job.users_key, job.dim
    # A rotation, whose first half alone would be a low rank.
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0]
    job.transform = Transform(rotation, rotation)
    assert job.users_key != plain_key
    bundle = run(job, tmp_path / "bundle")
    scores = reference_scores(checkpoint, TEXTS[:3])
    answer = Runtime.open(bundle.path).topk(TEXTS[:3], 10)
    for item in range(3):
        np.testing.assert_allclose(answer.scores[item], np.sort(scores[item])[::-1][:10], rtol=1e-3, atol=1e-4)
    stored = {int(i): row for ids, rows in bundle.table().decoded() for i, row in zip(ids, rows, strict=True)}
    ids, rows, _ = next(checkpoint.users.labelled_chunks())
    np.testing.assert_allclose(stored[int(ids[5])], rotation @ rows[5], rtol=1e-4, atol=1e-6)


def test_an_interrupted_build_goes_on(checkpoint: Checkpoint, built: Bundle, out: Path) -> None:
    interrupted_at("parity", checkpoint, out)
    assert not out.exists()
    stages: list[str] = []
    bundle = build(checkpoint, out, calibration=TEXTS, min_recall=0.9, progress=lambda stage, *_: stages.append(stage))
    assert {"encoder (done before)", "head (done before)", "users (done before)"} <= set(stages)
    assert "export by torch" not in stages
    assert bundle.files()["users/table.json"] == built.files()["users/table.json"]
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_a_build_interrupted_while_it_is_described_goes_on(
    checkpoint: Checkpoint, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "describe_files", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(checkpoint, out, calibration=TEXTS, min_recall=0.9)
    stages: list[str] = []
    build(checkpoint, out, calibration=TEXTS, min_recall=0.9, progress=lambda stage, *_: stages.append(stage))
    assert {f"{step.name} (done before)" for step in STEPS} <= set(stages)
    assert not {".build.json", ".build.lock"} & set(Bundle.load(out).manifest.files)
    assert not list(out.glob(".build.*"))


def test_a_damaged_step_is_done_again(checkpoint: Checkpoint, out: Path) -> None:
    interrupted_at("parity", checkpoint, out)
    shard = next((out.with_name("bundle.partial") / "users").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-5])
    build(checkpoint, out, calibration=TEXTS, min_recall=0.9).verify()


def test_too_little_recall_is_an_error_and_the_report_is_there(checkpoint: Checkpoint, out: Path) -> None:
    with pytest.raises(ParityError, match=r"recall@10 of the int4 bundle.*expected at least 1") as caught:
        build(checkpoint, out, calibration=TEXTS, quant="int4", k=10, min_recall=1.0)
    assert not (out).exists()
    report = out.with_name("bundle.partial") / "reports" / "parity.json"
    assert str(report) in str(caught.value)
    assert json.loads(report.read_text())["parity"]["recall"]["10"] < 1
    bundle = build(checkpoint, out, calibration=TEXTS, quant="int4", k=10, min_recall=0.3)
    assert bundle.parity().recall[10] < 1


def test_a_finished_bundle_is_held_to_a_higher_bar_too(checkpoint: Checkpoint, out: Path) -> None:
    arguments = {"calibration": TEXTS, "quant": "int4", "k": 10}
    build(checkpoint, out, min_recall=0.3, **arguments)
    with pytest.raises(ParityError):
        build(checkpoint, out, min_recall=1.0, **arguments)
    assert Bundle.load(out).verify()


def test_another_codec_replaces_the_bundle(checkpoint: Checkpoint, out: Path) -> None:
    build(checkpoint, out, calibration=TEXTS, quant="int8", min_recall=0.5)
    bundle = build(checkpoint, out, calibration=TEXTS, quant="fp16", min_recall=0.5)
    assert bundle.table().layout.codec == "fp16"
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("quant", ENGINES["native"].codecs)
def test_every_codec_builds_and_both_engines_agree(checkpoint: Checkpoint, out: Path, quant: str) -> None:
    bundle = build(checkpoint, out, calibration=TEXTS, quant=quant, k=10, min_recall=0.3)
    engines = [Runtime.open(bundle.path, engine=name) for name in ("onnxruntime", "numpy")]
    for mode in ("topk", "sample"):
        a, b = (runtime.topk(TEXTS[:4], 5, mode=mode, seed=1) for runtime in engines)
        np.testing.assert_array_equal(a.user_ids, b.user_ids)
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4, atol=1e-5)
    if quant == "fp32":
        assert bundle.parity().recall[10] == 1


def test_a_path_that_is_no_bundle_is_not_replaced(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="exists and is not a bundle"):
        build(checkpoint, tmp_path / "mine", calibration=TEXTS)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quant": "int3"}, "no codec 'int3'"),
        ({"min_recall": 1.5}, "min_recall is 1.5"),
        ({"k": 0}, "k is 0"),
        ({"k": 400}, "k is 400 and the checkpoint has 400 users; expected k below the number of users"),
        ({"exporter": "magic"}, "exporter is 'magic'"),
        ({"sketch": "maybe"}, "sketch is 'maybe'; expected one of auto, yes, no"),
        ({"cluster": True}, "cluster is True; expected one of auto, yes, no"),
        ({"calibration": []}, "calibration is empty"),
    ],
)
def test_unfit_options_are_named(checkpoint: Checkpoint, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(checkpoint, tmp_path / "bundle", **{"calibration": TEXTS, **options})


def test_a_build_that_cannot_fit_is_refused_before_it_begins(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(BudgetError, match=r"and .* has 1,000 free"):
        build(checkpoint, tmp_path / "bundle", calibration=TEXTS)
    assert not list(tmp_path.iterdir())


def test_the_forecast_of_the_table_is_exact_and_that_of_the_encoder_near_the_truth(built: Bundle) -> None:
    forecast = built.report("reports/build.json")["forecast"]
    actual = sum(entry.bytes for name, entry in built.files().items() if name.startswith("users/"))
    assert forecast["files"]["users/"]["value"] == actual
    model = sum(entry.bytes for name, entry in built.manifest.files.items() if name.startswith("encoder/"))
    assert forecast["files"]["encoder/model.onnx"]["value"] == pytest.approx(model, rel=0.6)


def test_a_sketch_and_clusters_are_made_on_request(
    checkpoint: Checkpoint, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items: list[np.ndarray] = []

    class Watched(steps.TableWriter):
        def __init__(self, *arguments: object, **options: object) -> None:
            items.append(options["items"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(steps, "TableWriter", Watched)
    arguments = {"calibration": TEXTS, "min_recall": 0.9}
    bundle = build(checkpoint, out, sketch="yes", cluster="yes", **arguments)
    layout = bundle.table().layout
    assert layout.sketch_dims > 0
    assert layout.tile_bounds
    assert items[0].shape == (len(TEXTS), layout.dim)
    forecast = bundle.report("reports/build.json")["forecast"]["files"]["users/"]
    assert "sketch + " in forecast["arithmetic"]
    actual = sum(entry.bytes for name, entry in bundle.files().items() if name.startswith("users/"))
    # Rows of 16 dimensions have a sketch of all of them.
    assert actual == forecast["value"]
    native, reference = (Runtime.open(bundle.path, engine=name).topk(TEXTS, 20) for name in ("native", "numpy"))
    np.testing.assert_array_equal(native.user_ids, reference.user_ids)
    np.testing.assert_array_equal(native.scores, reference.scores)
    plain = build(checkpoint, out, sketch="no", cluster="no", **arguments)
    assert plain.table().layout.sketch_dims == 0
    assert items[1] is None
    assert plain.files()["users/00000.safetensors"].bytes < actual


def test_many_threads_share_one_runtime(built: Bundle) -> None:
    runtime = Runtime.open(built.path)
    expected = [runtime.topk([text], 10).user_ids.tolist() for text in TEXTS[:8]]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            found = pool.map(lambda text: runtime.topk([text], 10).user_ids.tolist(), TEXTS[:8])
            assert list(found) == expected


def test_a_finer_codec_after_a_refusal_does_not_export_again(checkpoint: Checkpoint, out: Path) -> None:
    with pytest.raises(ParityError):
        build(checkpoint, out, calibration=TEXTS, quant="int4", k=10, min_recall=1.0)
    stages: list[str] = []
    build(
        checkpoint,
        out,
        calibration=TEXTS,
        quant="fp32",
        k=10,
        min_recall=1.0,
        progress=lambda stage, *_: stages.append(stage),
    )
    assert "encoder (done before)" in stages
    assert "export by torch" not in stages
    assert "users (done before)" not in stages
