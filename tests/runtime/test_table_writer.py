"""Changing the table of a bundle: new rows are made as the build made its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export import BundleError, UserTable
from fllm_export.calibration.feedback import Feedback
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.transform import Transform
from fllm_export.files import publish_json
from fllm_export.manifest import CALIBRATION_REPORT, MOMENTS, TABLE_FOLDER, TRANSFORM, Manifest, describe_files
from fllm_export.prompt import Prompt
from fllm_export.runtime.table_writer import open_writer
from fllm_export.table.layout import TableLayout
from fllm_export.table.options import TableOptions
from fllm_export.table.rounding import nearest
from fllm_export.table.table import Table
from fllm_export.table.writer import TableWriter

GENERATOR = np.random.default_rng(8)
ROWS = GENERATOR.standard_normal((300, 24)).astype(np.float32)
ITEMS = GENERATOR.standard_normal((500, 24)).astype(np.float32)


def make_bundle(bundle: Path, rounding: str, quant: str = "int4row") -> Path:
    """A bundle whose rows are cut to 16 dimensions, without an encoder, and beside it a table of all users."""
    cut = np.linalg.qr(GENERATOR.standard_normal((24, 24)))[0][:16]
    transform, moments = Transform(cut, cut), Moments.of([ITEMS])
    bundle.mkdir()
    moments.save(bundle / MOMENTS)
    transform.save(bundle / TRANSFORM)
    publish_json(bundle / CALIBRATION_REPORT, {"rounding": rounding})
    rule = Feedback(cut @ moments.metric() @ cut.T) if rounding == "data" else nearest
    for users, place in ((200, bundle / TABLE_FOLDER), (300, bundle.parent / "all")):
        writer = TableWriter(place, TableOptions(quant=quant), dim=16, rounding=rule)
        writer.add(transform.rows(ROWS[:users]))
        writer.finish()
    identity = TableLayout.load(bundle / TABLE_FOLDER).identity
    Manifest(describe_files(bundle), Prompt("{text}", 8, "right", 0), 16, identity, {}).save(bundle)
    return bundle


@pytest.mark.parametrize("rounding", ["nearest", "data"])
def test_new_rows_are_transformed_and_rounded_as_those_of_the_build(tmp_path: Path, rounding: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", rounding)
    users = UserTable.open(bundle / TABLE_FOLDER, threads=1)
    users.append(ROWS[250:], np.arange(250, 300))
    users.append(ROWS[200:250], np.arange(200, 250))
    Manifest.load(bundle).verify(bundle)
    whole = UserTable.open(tmp_path / "all", threads=1)
    z = GENERATOR.standard_normal((3, 16)).astype(np.float32)
    found, expected = users.topk(z, 300), whole.topk(z, 300)
    if rounding == "nearest":
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
    else:  # the order of float32 sums depends on how many rows come at once
        by_user = [np.take_along_axis(a.scores, np.argsort(a.user_ids), 1) for a in (found, expected)]
        assert np.abs(by_user[0] - by_user[1]).mean() < 0.01 * np.abs(expected.scores).mean()


def test_a_bundle_may_be_named_in_the_place_of_its_table(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "nearest")
    change = open_writer(bundle).append([(ROWS[200:210], np.arange(200, 210), None)])
    assert (change.generation, change.users) == (2, 210)
    assert Table(bundle / TABLE_FOLDER).layout.identity == Manifest.load(bundle).table


def test_a_transform_that_is_not_the_bundles_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "nearest")
    Transform(np.eye(16), np.eye(16)).save(bundle / TRANSFORM)
    with pytest.raises(BundleError, match=r"transform.safetensors has .*bytes"):
        open_writer(bundle)


def test_a_table_of_another_bundle_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "nearest")
    (bundle / TABLE_FOLDER).rename(tmp_path / "away")
    UserTable.create(bundle / TABLE_FOLDER, ROWS[:, :16])
    with pytest.raises(BundleError, match="holds the table"):
        open_writer(bundle / TABLE_FOLDER)


def test_a_table_that_stands_alone_takes_rows_as_they_are(tmp_path: Path) -> None:
    UserTable.create(tmp_path / TABLE_FOLDER, ROWS[:100], quant="fp32")
    open_writer(tmp_path / TABLE_FOLDER).append([(ROWS[100:110], np.arange(100, 110), None)])
    rows = np.concatenate([part for _, part in Table(tmp_path / TABLE_FOLDER).decoded()])
    np.testing.assert_array_equal(rows[np.argsort(np.arange(110))], ROWS[:110])
