"""The writer of a user table: of one that stands alone, or of a bundle's, whose rows are transformed and rounded."""

from __future__ import annotations

from pathlib import Path

from fllm_export.calibration.feedback import Feedback
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.transform import Transform
from fllm_export.errors import BundleError, UsageError
from fllm_export.manifest import CALIBRATION_REPORT, FILE_NAME, LEARNER, MOMENTS, TABLE_FOLDER, TRANSFORM, Manifest
from fllm_export.runtime.places import table_of
from fllm_export.strict_json import read_object
from fllm_export.table.head_learner import HeadLearner, load_rule
from fllm_export.table.layout import TableLayout
from fllm_export.table.learner import Learner
from fllm_export.table.living import LivingTable, RowMap
from fllm_export.table.rounding import Rounding, nearest


def open_writer(directory: Path) -> LivingTable:
    """Return the writer of the user table in a directory, which may also be a bundle.

    New rows of a bundle are those that training makes: the bundle's transform is applied to them, and they are
    rounded as the bundle's rows were.

    Raises:
        BundleError: the directory is neither, the table is damaged, or what a bundle's rows are made with is.
    """
    table = table_of(directory)
    bundle = _bundle_of(table)
    if bundle is None:
        return LivingTable(table)
    manifest = Manifest.load(bundle)
    made_with = [name for name in (TRANSFORM, MOMENTS, CALIBRATION_REPORT) if name in manifest.files]
    manifest.verify(bundle, made_with)
    if TRANSFORM not in made_with:
        return LivingTable(table)
    transform = Transform.load(bundle / TRANSFORM)
    row_map = RowMap(transform.users.shape[1], transform.rows)
    return LivingTable(table, row_map=row_map, rounding=_rounding(bundle, transform, made_with))


def open_learner(directory: Path) -> Learner | HeadLearner:
    """Return the learner of a bundle, given by its directory or by that of its user table.

    Raises:
        BundleError: the directory is neither, or the learner's file is not the one that the manifest lists.
        UsageError: the directory holds a user table without a bundle, or the bundle has no learner.
    """
    table = table_of(directory)
    bundle = _bundle_of(table)
    if bundle is None:
        raise UsageError(
            f"{table} is a user table without a bundle",
            expected="a bundle, which knows how its users' rows are made of items",
            fix="Use append or update, and give the rows",
        )
    manifest = Manifest.load(bundle)
    if LEARNER not in manifest.files:
        raise UsageError(
            f"{bundle} has no {LEARNER}, so its users cannot be learned",
            expected="a bundle of a checkpoint with a learner.safetensors, without refinement rows",
            fix="Train again with `fllm-export train --vocabulary closed_form`, and build again without --refine",
        )
    manifest.verify(bundle, [LEARNER])
    return load_rule(bundle / LEARNER)


def _bundle_of(table: Path) -> Path | None:
    """Return the bundle whose table this is, if it is a bundle's."""
    bundle = table.parent
    if table.name != TABLE_FOLDER or not (bundle / FILE_NAME).is_file():
        return None
    wanted, found = Manifest.load(bundle).table, TableLayout.load(table).identity
    if wanted is not None and wanted != found:
        raise BundleError(
            f"{table} holds the table {found or 'without an identity'}",
            expected=f"{wanted}, which {bundle / FILE_NAME} vouches for",
            fix="Copy the bundle again, or build it again",
        )
    return bundle


def _rounding(bundle: Path, transform: Transform, made_with: list[str]) -> Rounding:
    report = bundle / CALIBRATION_REPORT
    if CALIBRATION_REPORT not in made_with or read_object(report).get("rounding") != "data":
        return nearest
    metric = Moments.load(bundle / MOMENTS).metric()
    return Feedback(transform.items @ metric @ transform.items.T)
