"""A bundle that lies there: what vouches for its files, and what is not understood."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Bundle, BundleError, Runtime, UserTable


@pytest.fixture
def built(tiny_bundle: Bundle) -> Bundle:
    return tiny_bundle


def test_verify_reads_the_whole_bundle(built: Bundle) -> None:
    total = sum(path.stat().st_size for path in built.path.rglob("*") if path.is_file())
    assert built.verify() == total - (built.path / "manifest.json").stat().st_size
    assert Bundle.load(built.path).manifest.files == built.manifest.files


def test_the_table_of_a_bundle_may_change_and_is_still_vouched_for(built: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(built.path, copy)
    layout = built.table().layout
    replace(layout, generation=layout.generation + 1).save(copy / "users")
    Bundle.load(copy).verify()
    shutil.rmtree(copy / "users")
    UserTable.create(copy / "users", np.ones((400, layout.dim)))
    with pytest.raises(BundleError, match=rf"holds the table \w+; expected {layout.identity}, which .*manifest"):
        Bundle.load(copy).verify()
    (copy / "users" / "table.json").unlink()
    with pytest.raises(BundleError, match=r"holds no table\.json"):
        Bundle.load(copy).verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, r"has format version 99; expected at most 1.*Upgrade fllm-export"),
        ({"reader_features": ["sketch"]}, "needs the reader features sketch"),
        ({"reader_features": 5}, "reader_features is 5; expected a list of names"),
        ({"reader_features": [{}]}, "expected a list of names"),
        ({"prompt": {"template": "none"}}, "is not a manifest"),
        ({"files": {"a": 1}}, "is not a manifest"),
    ],
)
def test_a_manifest_that_is_not_understood(built: Bundle, tmp_path: Path, change: dict, message: str) -> None:
    shutil.copytree(built.path, tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BundleError, match=message):
        Runtime.open(tmp_path / "bundle")


@pytest.mark.parametrize("name", ["encoder/model.onnx", "head/tile.onnx", "README.md", "tokenizer.json"])
def test_a_changed_file_is_named(built: Bundle, tmp_path: Path, name: str) -> None:
    shutil.copytree(built.path, tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=rf"{name} has SHA-256 \w+; expected \w+"):
        Bundle.load(tmp_path / "bundle").verify()
    path.unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        Bundle.load(tmp_path / "bundle").verify()
