from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fllm_export.errors import UsageError
from fllm_export.sweep.grid import Axes, make_grid
from fllm_export.sweep.journal import FILE_NAME, Journal
from fllm_export.sweep.record import Record
from fllm_export.sweep.sweep import Settings, sweep

from .records import CONDITIONS, record

AXES = Axes(quant=("int8", "fp16"), sketch=(False,), batch=(1, 4))
SETTINGS = Settings(k=20, seconds=0.0)


def lines(folder: Path) -> list[str]:
    path = folder / FILE_NAME
    return path.read_text().splitlines() if path.exists() else []


def test_a_killed_sweep_goes_on_after_its_last_line(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fllm_export.cli", "sweep", files / "rows.npy", "--items", files / "items.npy"]
    command += ["-o", out, "-k", 20, "--quant", "int8,fp16", "--batch", "1,4", "--sketch", "no", "--queries", 12]
    killed = subprocess.Popen(list(map(str, [*command, "--seconds", 0.5])), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not lines(out) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = lines(out)
    assert 1 <= len(before) < 4
    with (out / FILE_NAME).open("a") as file:
        file.write(before[0][:40])  # the kill came while a line was written
    done = subprocess.run(list(map(str, [*command, "--json"])), capture_output=True, text=True, check=True, timeout=300)
    document = json.loads(done.stdout)
    assert document["reused"] == len(before)
    assert len(document["records"]) == 4
    after = lines(out)
    assert after[: len(before)] == before
    assert len(after) == 4
    assert not (out / "tables").exists()
    assert len({json.loads(line)["point"] for line in after}) == 4


def test_lines_of_other_conditions_stay_and_are_not_used(tmp_path: Path) -> None:
    mine, other = record("a"), replace(CONDITIONS, machine={**CONDITIONS.machine, "isa": "avx512"})
    foreign = replace(mine, conditions=other.key)
    older = mine.line(CONDITIONS).replace('"version": 1', '"version": 0')
    content = foreign.line(other) + mine.line(CONDITIONS) + older + "not JSON\n"
    (tmp_path / FILE_NAME).write_text(content)
    with Journal(tmp_path, CONDITIONS) as journal:
        assert journal.records == {"a": mine}
        assert journal.foreign == 3
        journal.add(record("b"))
    assert (tmp_path / FILE_NAME).read_text() == content + record("b").line(CONDITIONS)
    for name in ("k", "machine", "software", "subject"):
        changed = replace(CONDITIONS, **{name: 7 if name == "k" else {**getattr(CONDITIONS, name), "rows_sha256": ""}})
        with Journal(tmp_path, changed) as journal:
            assert not journal.records


def test_one_sweep_at_a_time_works_in_a_directory(tmp_path: Path) -> None:
    with (
        Journal(tmp_path, CONDITIONS),
        pytest.raises(UsageError, match="another sweep is running"),
        Journal(tmp_path, CONDITIONS),
    ):
        pass


def test_other_rows_are_measured_again(subject, limits, tmp_path: Path) -> None:
    grid = make_grid(replace(AXES, quant=("int8",), batch=(1,)), limits)
    first = sweep(subject, grid, tmp_path, SETTINGS)
    told: list[Record] = []
    again = sweep(subject, grid, tmp_path, SETTINGS, finished=told.append)
    assert (again.reused, again.records, told) == (1, first.records, [])
    corpus = subject.corpus._replace(rows=subject.corpus.rows * 2)
    other = sweep(replace(subject, corpus=corpus), grid, tmp_path, SETTINGS, finished=told.append)
    assert (other.reused, other.foreign, len(told)) == (0, 1, 1)
    assert other.records[0].conditions != first.records[0].conditions
    assert other.truth_s != first.truth_s
