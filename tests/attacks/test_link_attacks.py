"""Links that lie: each is refused, by the readers in Python and in C++ alike, and by readers that know no links."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BundleError, UsageError, UserTable
from fllm_export.strict_json import read_versioned
from fllm_export.table.layout import FILE_NAME, FORMAT_VERSION
from fllm_export.table.table import Table
from tests.linked import set_link
from tests.test_link import BAD_LINKS

ROWS = np.random.default_rng(3).standard_normal((100, 16)).astype(np.float32)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    UserTable.create(tmp_path / "t", ROWS)
    set_link(tmp_path / "t", 2)
    return tmp_path / "t"


def edit(table: Path, **members: Any) -> None:
    document = json.loads((table / FILE_NAME).read_text())
    (table / FILE_NAME).write_text(json.dumps({**document, **members}))


def refused(table: Path, match: str) -> None:
    for engine in ("native", "numpy"):
        with pytest.raises(BundleError, match=match):
            UserTable.open(table, engine=engine, threads=1)


@pytest.mark.parametrize("link", BAD_LINKS, ids=str)
def test_what_is_not_a_link_is_refused(table: Path, link: Any) -> None:
    edit(table, link=link)
    refused(table, "table.json.*(link|kind|exponent)")


def test_a_link_that_is_not_announced_is_refused(table: Path) -> None:
    edit(table, reader_features=[])
    refused(table, "`link` is not one of the reader features; expected both or neither")


def test_an_announced_link_that_is_missing_is_refused(table: Path) -> None:
    document = json.loads((table / FILE_NAME).read_text())
    del document["link"]
    (table / FILE_NAME).write_text(json.dumps(document))
    refused(table, "`link` is missing")


def test_a_reader_that_knows_no_links_refuses_the_table(table: Path) -> None:
    with pytest.raises(BundleError, match=r"needs the reader features link.*Upgrade fllm-export"):
        read_versioned(table / FILE_NAME, FORMAT_VERSION, frozenset({"refinement", "tombstones"}))


def test_the_exponential_is_not_mentioned(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "t", ROWS)
    document = json.loads((tmp_path / "t" / FILE_NAME).read_text())
    assert "link" not in document
    assert document["reader_features"] == []


def test_a_changed_link_does_not_have_the_hash_of_the_table(table: Path) -> None:
    edit(table, link={"kind": "power", "exponent": 3})
    with pytest.raises(BundleError, match="is not as it was written"):
        Table(table).verify()


def test_engines_that_compute_exponentials_refuse_a_power(table: Path) -> None:
    with pytest.raises(UsageError, match=r"'cuda' computes exponentials.*Use the engine 'native'"):
        UserTable.open(table, engine="cuda")
