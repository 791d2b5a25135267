from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export.cli.main import main
from fllm_export.cli.sweep import PEERS
from fllm_export.sweep import peer_points
from fllm_export.sweep.grid import Axes, make_grid
from fllm_export.sweep.peer_points import PeerIndex, peer_indexes
from fllm_export.sweep.peers.base import multiples, parts, rank_again
from fllm_export.sweep.peers.catalogue import LIBRARIES, Library
from fllm_export.sweep.sweep import Settings, sweep


class Scan:
    """An index of a made-up library: the first part of the rows, by float32 products."""

    settings = multiples("share", 0.5, 1)
    file_bytes = 0
    keeps_rows = True

    def __init__(self, name="Made-up scan", error=None):
        self.name = name
        self.error = error
        self.built = 0

    def build(self, rows, threads):
        if self.error is not None:
            raise self.error
        self.built += 1
        self.rows = rows
        return self

    def search(self, z, k, setting):
        part = self.rows[: int(len(self.rows) * setting["share"])]
        return np.argsort(-(z @ part.T), axis=1, kind="stable")[:, :k]


@pytest.fixture
def grid(limits):
    return make_grid(Axes(quant=("int8",), sketch=(False,)), limits)


def made_up(*scans):
    library = Library("Made-up", "numpy", lambda rows: scans)
    return [PeerIndex(library, scan, 1, (1, 4)) for scan in scans]


def test_other_libraries_are_measured_like_our_own(subject, grid, tmp_path):
    scan = Scan()
    found = sweep(subject, grid, tmp_path, Settings(20, 0), peers=made_up(scan))
    own, *others = found.records
    assert own.own
    assert [record.axes["share"] for record in others] == [0.5, 1, 0.5, 1]
    assert {record.system for record in others} == {"Made-up"}
    assert [record.measured.recall == 1 for record in others] == [False, True, False, True]
    assert others[0].measured.recall == others[2].measured.recall > 0.3
    assert all(record.measured.bytes_per_user >= 4 * subject.dim for record in others)
    assert all(record.axes["version"] == np.__version__ for record in others)
    again = sweep(subject, grid, tmp_path, Settings(20, 0), peers=made_up(scan))
    assert (again.records, again.reused, scan.built) == (found.records, 5, 1)


def test_what_cannot_be_built_is_left_out_and_said(subject, grid, tmp_path):
    missing = Scan("Made-up missing", ImportError("no such library"))
    unknown = Scan("Made-up unknown", RuntimeError("no such index\nmore"))
    found = sweep(subject, grid, tmp_path, Settings(20, 0), peers=made_up(missing, unknown, Scan()))
    assert len(found.records) == 5
    assert found.left_out["Made-up missing cannot be built here: no such library"] == 4
    assert found.left_out["Made-up unknown cannot be built here: no such index"] == 4


def test_biases_become_a_dimension(subject, tmp_path, limits):
    bias = np.linspace(-3, 3, len(subject.corpus.rows), dtype=np.float32)
    subject = type(subject)(subject.corpus._replace(bias=bias), subject.others, "rows", "the rows")
    grid = make_grid(Axes(quant=("fp32",), sketch=(False,)), limits)
    found = sweep(subject, grid, tmp_path, Settings(20, 0), peers=made_up(Scan()))
    assert found.records[0].measured.recall == found.records[2].measured.recall == 1


@pytest.mark.parametrize("name", ["faiss", "usearch"])
def test_real_libraries_rank_rows_that_are_far_larger_than_their_biases(name, subject, grid, tmp_path):
    pytest.importorskip({"faiss": "faiss", "usearch": "usearch.index"}[name])
    # As a checkpoint with a `kernel` mapper has them: scores of a few units from large rows and small item vectors.
    rows, _, items = subject.corpus
    bias = 2 + 0.5 * np.random.default_rng(0).standard_normal(len(rows)).astype(np.float32)
    corpus = subject.corpus._replace(rows=rows * np.float32(3e3), bias=bias, items=items / np.float32(3e3))
    subject = type(subject)(corpus, subject.others, "rows", "the rows")
    indexes, _ = peer_indexes([name], len(rows), (1,), (1,))
    found = sweep(subject, grid, tmp_path, Settings(20, 0), peers=indexes)
    assert not any("cannot be built" in reason for reason in found.left_out)  # d + 1 is odd: it has no half
    recalls = {record.point: record.measured.recall for record in found.records if not record.own}
    assert min(recalls.values()) > 0.3, recalls


def test_libraries_that_are_not_installed_are_left_out(files, tmp_path, monkeypatch):
    monkeypatch.setattr(peer_points, "package_version", lambda package: None)
    found, left_out = peer_indexes(LIBRARIES, 1_000, (1, 2), (1,))
    assert not found
    assert len(left_out) == len(LIBRARIES)
    common = [
        "sweep",
        files / "rows.npy",
        "--items",
        files / "items.npy",
        "-o",
        tmp_path / "out",
        "-k",
        20,
        "--seconds",
        0,
    ]
    common += ["--quant", "int8", "--sketch", "no", "--threads", 1, "--peers", "faiss,scann", "--json"]
    result = CliRunner().invoke(main, list(map(str, common)))
    assert result.exit_code == 0, result.output
    assert "FAISS is not installed (pip install faiss-cpu)" in result.stderr
    assert len(json.loads(result.stdout)["records"]) == 1
    assert CliRunner().invoke(main, [*map(str, common), "--peers", "annoy"]).exit_code == 2
    assert tuple(LIBRARIES) == PEERS


@pytest.mark.parametrize("name", LIBRARIES)
def test_real_libraries_find_the_best_rows(name, subject, grid, tmp_path):
    module = {"faiss": "faiss", "usearch": "usearch.index", "scann": "scann"}[name]
    pytest.importorskip(module)
    indexes, left_out = peer_indexes([name], len(subject.corpus.rows), (1,), (1,))
    assert not left_out
    found = sweep(subject, grid, tmp_path, Settings(20, 0), peers=indexes)
    others = [record for record in found.records if not record.own]
    assert max(record.measured.recall for record in others) > 0.99
    assert min(record.measured.recall_at_10 for record in others) > 0.3
    assert all(record.measured.bytes_per_user >= 0 for record in others)


def test_candidates_are_ranked_again_best_first():
    generator = np.random.default_rng(0)
    rows, z = generator.standard_normal((50, 4), np.float32), generator.standard_normal((3, 4), np.float32)
    candidates = np.tile(np.arange(40), (3, 1))
    expected = np.argsort(-(z @ rows[:40].T), axis=1)[:, :10]
    np.testing.assert_array_equal(rank_again(rows, z, candidates, 10), expected)
    assert [(first, len(part)) for first, part in parts(rows, 3)] == [(0, 16), (16, 17), (33, 17)]
