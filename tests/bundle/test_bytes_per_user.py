from __future__ import annotations

import functools
import json
import operator
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import Bundle, Checkpoint, ParityError, UsageError, build
from fllm_export.bundle import form_search
from fllm_export.bundle.job import PARITY_TEXTS, Job, Options
from fllm_export.bundle.pipeline import run
from fllm_export.bundle.size_facts import front_rows, tried_forms
from fllm_export.bundle.steps import STEPS
from fllm_export.bundle.trial_journal import FILE_NAME, TrialJournal
from fllm_export.bundle.wanted_size import WantedSize
from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.trials import Trials
from fllm_export.checkpoint.users import UserRows
from fllm_export.cli.main import main
from fllm_export.progress import silent
from fllm_export.table.options import TableOptions

WORDS = ("graphs", "films", "genes", "the sea", "jazz", "protein folding", "shoes", "networks", "yeast", "novels")
TEXTS = [f"a paper on {a} and {b} number {i}" for i in range(5) for a in WORDS for b in WORDS]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """A small checkpoint of 64 dimensions with 2,000 users, most of whose scores lie in a few directions."""
    made = tiny_checkpoint("llama", users=2000, dim=64)
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((2000, 64)) * np.linspace(2, 0.05, 64) @ generator.standard_normal((64, 64))
    users = UserRows.from_array(rows.astype(np.float32), bias=generator.standard_normal(2000).astype(np.float32))
    return Checkpoint(made.spec, made.base, made.adapter, made.mapper, users, made.features)


def options_of(size: WantedSize, **changed: Any) -> Options:
    return replace(Options(TableOptions(), 0.5, 20, "torch", 2, size=size), **changed)


def job_of(checkpoint: Checkpoint, size: WantedSize, texts: list[str] = TEXTS, **changed: Any) -> Job:
    return Job.prepare(checkpoint, texts, options_of(size, **changed), silent)


class Built(NamedTuple):
    """A bundle of at most 48 bytes per user, and what the command line printed."""

    folder: Path
    bundle: Bundle
    text: str


@pytest.fixture(scope="module")
def command(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("size")
    checkpoint.save(folder / "checkpoint")
    (folder / "items.txt").write_text("\n".join(TEXTS))
    arguments = ["build", folder / "checkpoint", "--out", folder / "bundle", "--calibration", folder / "items.txt"]
    done = CliRunner().invoke(
        main, [*map(str, arguments), *["-k", "20", "--min-recall", "0.3", "--bytes-per-user", "48"]]
    )
    assert done.exit_code == 0, done.stderr
    return Built(folder, Bundle.load(folder / "bundle"), done.stdout)


@pytest.fixture
def built(command: Built) -> Bundle:
    return command.bundle


def table_bytes(bundle: Bundle) -> float:
    files = [path for path in (bundle.path / "users").iterdir() if path.is_file()]
    return sum(path.stat().st_size for path in files) / bundle.table().layout.rows


def test_the_table_takes_what_was_requested_and_what_the_report_says(built: Bundle) -> None:
    report = built.size_search()
    assert report is not None
    chosen = report["chosen"]
    assert table_bytes(built) == pytest.approx(chosen["bytes"], abs=0.1)
    assert table_bytes(built) <= 48
    layout = built.table().layout
    assert (layout.codec, layout.dim) == (chosen["quant"], chosen["dim"])
    assert chosen["recall"] == max(one["recall"] for one in report["tried"])
    assert len({one["quant"] for one in report["tried"]}) >= 4
    assert all(one["bytes"] <= 48 for one in report["tried"])
    assert built.parity().recall[20] == pytest.approx(chosen["held_out_recall"], abs=0.005)
    built.verify()


def test_the_reports_show_the_front(built: Bundle) -> None:
    report = built.size_search()
    assert report is not None
    card, page = (built.path / "README.md").read_text(), (built.path / "reports" / "report.html").read_text()
    rows = front_rows(report)
    assert [row[0] for row in rows].count("chosen") == 1
    for _, size, form, recall in rows:
        assert f"| {size} | {form} | {recall} |" in card
        assert form in page
    assert "](reports/bytes_per_user.svg)" in card
    assert (built.path / "reports" / "bytes_per_user.svg").read_text().startswith("<svg")
    assert {"reports/bytes_per_user.svg", "reports/bytes_per_user.json"} <= set(built.manifest.files)
    assert not list(built.path.glob(".*"))
    assert f"{report['chosen']['held_out_recall']:.4f} on {PARITY_TEXTS} others" in card
    assert sorted(tried_forms(report), key=lambda one: one.bytes) == tried_forms(report)


def test_the_command_prints_the_front_and_the_choice(command: Built) -> None:
    report = command.bundle.size_search()
    assert report is not None
    for _, size, form, recall in front_rows(report):
        assert any(all(part in line for part in (size, form, recall)) for line in command.text.splitlines())
    assert "(the best of at most 48)" in command.text
    assert f"{report['chosen']['held_out_recall']:.4f} on {PARITY_TEXTS} others; on all users" in command.text


def test_the_same_request_builds_once(command: Built) -> None:
    files = command.folder / "items.txt"
    again = build(
        command.folder / "checkpoint", command.bundle.path, calibration=files, k=20, min_recall=0.3, bytes_per_user=48
    )
    assert again.manifest == command.bundle.manifest


def test_texts_that_choose_measure_and_judge_are_different_ones(checkpoint: Checkpoint) -> None:
    job = job_of(checkpoint, WantedSize(48))
    parts = [job.sample, job.choice_texts, job.others]
    assert sorted(functools.reduce(operator.iadd, parts, [])) == sorted(TEXTS)
    assert len(job.choice_texts) == (len(TEXTS) - PARITY_TEXTS) // 4
    assert sorted(job.moment_texts) == sorted(job.others)


def test_auto_takes_the_smallest_form_that_is_sure(checkpoint: Checkpoint, tmp_path: Path) -> None:
    bundle = build(checkpoint, tmp_path / "b", calibration=TEXTS, k=20, min_recall=0.9, bytes_per_user="auto")
    report = bundle.size_search()
    assert report is not None
    sure = [one["bytes"] for one in report["tried"] if one["recall"] - 2 * one["margin"] >= 0.9]
    assert report["chosen"]["bytes"] == min(sure)
    assert bundle.parity().recall[20] >= 0.9
    assert table_bytes(bundle) == pytest.approx(report["chosen"]["bytes"], abs=0.1)


def test_quant_dim_and_rounding_restrict_the_search(checkpoint: Checkpoint) -> None:
    for size, changed, allowed in (
        (WantedSize(40, "int4row"), {}, lambda form: form.quant == "int4row"),
        (WantedSize(60), {"dim": 24}, lambda form: form.dim == 24),
        (WantedSize(60), {"rounding": "nearest"}, lambda form: form.rounding == "nearest"),
    ):
        forms = [one.form for line in job_of(checkpoint, size, **changed).forms().lines() for one in line]
        assert len(forms) > 1
        assert all(allowed(form) for form in forms)


@pytest.mark.parametrize(
    ("size", "changed", "words"),
    [
        (WantedSize(12), {}, r"smallest table takes 2\d\.\d bytes per user .*at least 2\d"),
        (WantedSize(600), {}, r"largest table takes 27\d\.\d bytes per user"),
        (WantedSize(60), {"dim": "auto"}, "dim is auto and bytes_per_user is set"),
        (WantedSize(60, "int8"), {"dim": 32, "rounding": "data"}, "leaves only int8 x 32, rounded by data to choose"),
        (WantedSize(60), {"dim": 64}, "dim is 64"),
        (
            WantedSize(60),
            {"table": TableOptions(refine="int8")},
            "refine is int8 .*refinement rows would raise their recall.*Build with --bytes-per-user alone",
        ),
        (WantedSize(60, "fp16"), {"rounding": "data"}, "rounding is data and quant is fp16"),
    ],
)
def test_what_cannot_be_chosen_is_an_error(
    checkpoint: Checkpoint, size: WantedSize, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        job_of(checkpoint, size, **changed)


def test_invalid_values_and_too_few_texts_are_errors(checkpoint: Checkpoint, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"calibration": TEXTS, "k": 20}
    for size in (0, -3, 1.5, "small", True):
        with pytest.raises(UsageError, match="bytes_per_user"):
            build(checkpoint, tmp_path / "b", bytes_per_user=size, **arguments)
    with pytest.raises(UsageError, match=r"there are 300 calibration texts .*at least 384"):
        build(checkpoint, tmp_path / "b", calibration=TEXTS[:300], k=20, bytes_per_user=48)
    with pytest.raises(UsageError, match="beside an operating point"):
        build(checkpoint, tmp_path / "b", bytes_per_user=48, operating_point=_point(tmp_path), **arguments)
    assert not (tmp_path / "b").exists()


def _point(folder: Path) -> Path:
    from fllm_export.operating_point import OperatingPoint

    OperatingPoint("int8", 32, False, False, "native", 1, True, "exact", 1, None).save(folder / "point.json")
    return folder / "point.json"


def test_a_recall_out_of_reach_ends_the_build_before_the_table(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"the best form of at most 32 bytes per user, .*has recall@20 0\.\d{4}"):
        build(checkpoint, tmp_path / "b", calibration=TEXTS, k=20, min_recall=0.999, bytes_per_user=32)
    staging = tmp_path / "b.partial"
    assert (staging / "reports" / "bytes_per_user.json").exists()
    assert not (staging / "users").exists()


@pytest.mark.parametrize("request_", [["32"], ["auto", "--quant", "int2"]], ids=["bytes", "auto"])
def test_a_search_in_vain_prints_all_that_it_measured(command: Built, tmp_path: Path, request_: list[str]) -> None:
    arguments = ["build", command.folder / "checkpoint", "--out", tmp_path / "b", "-k", 20, "--min-recall", 0.999]
    arguments += ["--calibration", command.folder / "items.txt", "--json", "--bytes-per-user", *request_]
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 3, done.stderr
    found = json.loads(done.stdout)["error"]["bytes_per_user"]
    assert found == json.loads((tmp_path / "b.partial" / "reports" / "bytes_per_user.json").read_text())
    tried = tried_forms(found)
    assert len(tried) > 1
    lines = [line.split() for line in done.stderr.splitlines()]
    for one in tried:
        assert [f"{one.bytes:,.1f}", *str(one.form).split(), f"{one.recall:.4f}", f"{one.margin:.4f}"] in lines


def test_a_killed_search_goes_on_after_its_last_form(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[RowForm] = []
    recalls = Trials.recalls

    def until_killed(trials: Trials, form: RowForm, texts: slice) -> Any:
        if len(measured) == 5:
            raise KeyboardInterrupt
        measured.append(form)
        return recalls(trials, form, texts)

    steps = [step for step in STEPS if step.name in ("moments", "form of rows")]
    staging = tmp_path / "bundle.partial"
    monkeypatch.setattr(Trials, "recalls", until_killed)
    with pytest.raises(KeyboardInterrupt):
        run(job_of(checkpoint, WantedSize(48)), tmp_path / "bundle", steps)
    with (staging / FILE_NAME).open("ab") as journal:
        journal.write(b'{"key": "cut sho')
    first = list(measured)
    monkeypatch.setattr(Trials, "recalls", lambda *given: measured.append(given[1]) or recalls(*given))
    job = job_of(checkpoint, WantedSize(48))
    files = form_search.search(job, staging)
    report = json.loads(files[0].read_text())
    assert not set(first) & set(measured[5:-1])
    assert len({RowForm(one["quant"], one["dim"], one["rounding"]) for one in report["tried"]}) == len(measured) - 1
    assert not (staging / FILE_NAME).exists()


def test_a_journal_of_other_inputs_does_not_count(tmp_path: Path) -> None:
    form = RowForm("int2", 32, "data")
    TrialJournal(tmp_path, "one").add(form, 0.5, 0.01)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b"[1]\nnull\n{}\n" + os.urandom(20))
    assert TrialJournal(tmp_path, "one").get(form) == (0.5, 0.01)
    assert TrialJournal(tmp_path, "two").get(form) is None
