from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fllm_export import Bundle
from fllm_export.bundle.bundle import PARITY_REPORT
from fllm_export.bundle.report import write_report
from fllm_export.files import publish_json

from ..drawn import check, measured


def test_the_report_is_one_whole_page_that_begins_with_the_verdict(tiny_bundle: Bundle) -> None:
    page = (tiny_bundle.path / "reports" / "report.html").read_text()
    check(page)
    parity = tiny_bundle.parity()
    recall = f"recall@{parity.k} is {parity.recall[parity.k]:.4f}, and at least 0.9 was required."
    assert f"<strong>Passed</strong>: {recall}" in page
    assert page.index("<strong>Passed") < page.index("<h2>")
    for depth, value in parity.recall.items():
        assert f">recall@{depth}</text>" in page
        assert f">{value:.4f}</text>" in page
    assert sum(parity.recall_counts.values()) == parity.texts
    assert page.count('class="mark"') == 1
    assert "LlamaForCausalLM" in page
    assert "merged against unmerged" in page


def test_the_card_names_base_model_threshold_and_date(tiny_bundle: Bundle) -> None:
    card, parity = (tiny_bundle.path / "README.md").read_text(), tiny_bundle.parity()
    provenance = tiny_bundle.manifest.provenance
    assert "| base model | LlamaForCausalLM, " in card
    assert f"| built | {provenance['built_at']}, by fllm-export " in card
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", provenance["built_at"])
    assert f"recall@{parity.k} is {parity.recall[parity.k]:.4f}; at least 0.9 was required" in card
    assert "Merging the adapter changed scores by at most" in card


@pytest.fixture
def refused(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """The reports and the table of a bundle whose worst text lost two users, without an adapter."""
    (tmp_path / "users").symlink_to(tiny_bundle.path / "users")
    expected = list(range(1000, 1100))
    found = [*expected[:90], 7, *expected[91:99], 8]
    parity = replace(
        tiny_bundle.parity(),
        recall={1: 1.0, 100: 0.98},
        worst_recall=0.98,
        worst={"text": "<b>the worst</b> " * 40, "expected": expected, "found": found},
    )
    report = tiny_bundle.report(PARITY_REPORT)
    publish_json(tmp_path / PARITY_REPORT, {**report, "parity": parity.to_dict()})
    encoder = tiny_bundle.report("reports/encoder.json")
    encoder["merge"]["adapter_sha256"] = None
    publish_json(tmp_path / "reports" / "encoder.json", encoder)
    bundle = Bundle(tmp_path, tiny_bundle.manifest)
    write_report(bundle, {**tiny_bundle.manifest.provenance, "min_recall": 0.99, "adapter_sha256": None})
    return bundle


def test_a_refused_build_says_so_and_marks_what_differs_in_the_worst_text(refused: Bundle) -> None:
    page = (refused.path / "reports" / "report.html").read_text()
    check(page)
    assert "<strong>Refused</strong>: recall@100 is 0.9800, and at least 0.99 was required." in page
    assert "was not published" in page
    assert re.findall(r'class="differs">([^<]*)<', page) == ["1090 (lost)", "7 (new)", "1099 (lost)", "8 (new)"]
    assert "2 of the checkpoint's first 100 users are lost" in page.replace("&#x27;", "'")
    assert "merged against unmerged" not in page
    assert "&lt;b&gt;the worst" in page


@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_draws_the_report_without_overflow(width: int, refused: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    folder.mkdir()
    page = (refused.path / "reports" / "report.html").read_text()
    assert measured(page, width, folder) == (width, width, 0, 0)
