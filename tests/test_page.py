"""The pages that people look at: whole, without anything from elsewhere, and drawn by a browser at two widths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fllm_export import page
from fllm_export.charts import Dot, Scale, bars, dots, legend
from fllm_export.line_charts import Axis, Line, lines

from .drawn import check, drawn, measured

COLLISIONS = """
  const box = e => e.getBoundingClientRect();
  const texts = [...document.querySelectorAll('svg text')].map(box);
  const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const covered = texts.filter((a, i) => texts.some((b, j) => i < j && overlap(a, b)));
  const outside = texts.filter(a => a.left < 0 || a.right > innerWidth);
  const range = document.createRange();
  const tall = cell => { range.selectNodeContents(cell); return box(range).height > 40; };
  const broken = [...document.querySelectorAll('td:not(:first-child)')].filter(tall);
  return [texts.length > 0, covered.length, outside.length, broken.length, document.documentElement.scrollWidth]
    .map(Number);"""
LONG = "a_word_without_an_end_" * 20


def every_element() -> str:
    scale = Scale.from_zero("milliseconds", 7.3)
    rows = {"batch 1": {"encode": 2.0, "scan": 5.3}, "batch 8": {"encode": 0.0, "scan": 0.0}}
    return page.page(
        "A <page> & more",
        [
            page.verdict(passed=False, found="0.5 < 0.9", meaning="It is refused."),
            page.section("Charts", bars("times", rows, {name: "7.3 ms" for name in rows}, scale)),
            legend(["encode", LONG]),
            dots("recall", [Dot("recall@1", 0.95, "0.95", 0.9)], Scale("recall", 0.9, 1.0, [0.9, 0.95, 1.0], 2)),
            page.section(
                "Words", page.note("a note"), page.quote(f"</blockquote><script>{LONG}"), page.facts({"a": LONG})
            ),
            page.table(["rank", "user"], [["1", "<7>"]], [[False, True]]),
        ],
    )


def test_everything_on_a_page_is_balanced_and_escaped() -> None:
    text = every_element()
    check(text)
    assert "A &lt;page&gt; &amp; more" in text
    assert '<td class="differs">&lt;7&gt;</td>' in text


@pytest.mark.parametrize("largest", [0.0, 1e-9, 0.013, 0.5, 1.0, 3.0, 7.3, 36.0, 250.0, 99_999.0])
def test_a_scale_from_zero_holds_its_largest_value_with_few_plain_ticks(largest: float) -> None:
    scale = Scale.from_zero("x", largest)
    assert scale.low == 0 < scale.high
    assert scale.high >= largest * (1 - 1e-9)
    assert 2 <= len(scale.ticks) <= 6
    labels = [f"{tick:.{scale.digits}f}" for tick in scale.ticks]
    assert len(set(labels)) == len(labels)
    assert all(float(label) == pytest.approx(tick) for label, tick in zip(labels, scale.ticks, strict=True))


def test_a_mark_crosses_its_own_row_alone() -> None:
    scale = Scale("recall", 0.0, 1.0, [0.0, 1.0])
    chart = dots("c", [Dot("a", 0.5, "0.5"), Dot("b", 0.5, "0.5", 0.9), Dot("c", 0.5, "0.5")], scale)
    (mark,) = re.findall(r'<line class="mark"[^>]*y1="(\d+)" y2="(\d+)"', chart)
    labels = [int(y) for y in re.findall(r'<text x="[\d.]+%" y="(\d+)"', chart)]
    assert labels[1] < int(mark[0]) < int(mark[1]) < labels[2]


@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_draws_a_page_without_overflow_and_in_readable_size(width: int, tmp_path: Path) -> None:
    assert measured(every_element(), width, tmp_path) == (width, width, 0, 0)


@pytest.mark.parametrize("width", [1280, 360])
def test_figures_and_labels_are_whole_on_a_telephone(width: int, tmp_path: Path) -> None:
    ranges = ["10 to\n44", "45 to\n102", "104 to\n213", "215 to\n481", "493 to\n2,513"]
    groups = lines("a", [Line([(0, 0), (4, 1)], 0)], Axis.named("users of the item", ranges), Axis.from_zero("r", 0.2))
    shares = Axis.decades("share", [0.0001, 0.001])
    figures, header = ["random users", "0.1463", "0.1453", "0.1607"], ["method", "precision@20", "recall@20", "NDCG@20"]
    table = page.table(header, [figures, [LONG[:40], *figures[1:]]], [[False, *[True] * 3]] * 2, kind="best")
    text = page.page("A page", [groups, lines("b", [], shares, shares), table])
    assert drawn(text, width, tmp_path, COLLISIONS) == [1, 0, 0, 0, width]
