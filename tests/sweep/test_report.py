from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from fllm_export.line_charts import Axis
from fllm_export.sweep.drawing import drawing
from fllm_export.sweep.pictures import curves_of
from fllm_export.sweep.report import report

from ..drawn import check, measured
from .records import record, sweep_of

HOSTILE = "</title><script>alert(1)</script>"
PROBE = """<script>addEventListener('load', () => {
  const box = e => e.getBoundingClientRect();
  const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const charts = [...document.querySelectorAll('svg.chart')];
  let covered = 0, outside = 0, lines = 9;
  for (const chart of charts) {
    const texts = [...chart.querySelectorAll('.tick, .title, .name, .hint')].map(box);
    texts.forEach((a, i) => texts.slice(i + 1).forEach(b => { covered += overlap(a, b); }));
    const frame = box(chart);
    for (const mark of chart.querySelectorAll('.spot path'))
      outside += box(mark).left < frame.left || box(mark).right > frame.right || box(mark).top < frame.top;
    lines = Math.min(lines, [...chart.querySelectorAll('polyline.line')].filter(e => box(e).width > 20).length);
  }
  const spot = document.querySelector('.spot');
  const seen = () => getComputedStyle(spot.querySelector('.told')).visibility;
  const before = seen();
  spot.focus();
  const fetched = performance.getEntriesByType('resource').length;
  const found = {charts: charts.length, covered, outside, lines, before, after: seen(), fetched,
    marks: document.querySelectorAll('.spot').length, told: spot.querySelector('.told').textContent};
  document.title = 'probed ' + JSON.stringify(found) + ' end';
})</script></body>"""


@pytest.fixture
def swept():
    """A sweep with two kinds of calls, two codecs, another library and every kind of figure."""
    own = [
        record(f"{quant}-{dim}-{batch}", quant=quant, dim=dim, batch=batch, recall=recall, recall_at_10=recall,
               median_ms=dim * width * batch**0.5, items_per_s=1e3 / dim, bytes_per_user=dim * width)
        for quant, width, loss in (("int8", 1.0, 0.003), ("int4", 0.6, 0.04))
        for dim, recall in ((128, 1 - loss), (96, 0.97 - loss), (64, 0.9 - loss), (32, 0.6 - loss))
        for batch in (1, 8)
    ]  # fmt: skip
    other = record("f", f"FAISS {HOSTILE}", index="Flat", version="1.12", k_factor=4, recall=1.0, median_ms=400.0)
    return sweep_of(*own, other)


def test_the_page_is_whole_and_holds_every_point(swept):
    text = report(swept)
    check(text)
    assert "<script>" not in text
    for each in swept.records:
        assert f">{each.measured.recall:.4f}<" in text
    assert "batch 8 is above 4 (2)" in text
    assert swept.conditions.subject["rows_sha256"] in text
    assert text.count('class="spot"') == 4 * len(swept.records) - 2 * len(swept.records) + len(swept.records)


def test_the_picture_stands_alone(swept):
    text = drawing(swept)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.get("width")) > 0
    assert len(root.findall(".//{*}polyline")) >= 3
    words = " ".join(text.itertext() if hasattr(text, "itertext") else root.itertext())
    assert "int4" in words
    assert "recall@100" in words
    assert "href" not in text
    assert "url(" not in text


def test_a_browser_draws_the_curves_and_fetches_nothing(swept, tmp_path: Path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium to draw pages with")
    page = tmp_path / "report.html"
    page.write_text(report(swept).replace("</body>", PROBE))
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=5000", "--window-size=1280,3000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    match = re.search(r"probed (\{.*\}) end", done.stdout)
    assert match, done.stderr[-2000:]
    found = json.loads(match[1])
    assert found["charts"] == 4
    assert found["lines"] >= 2
    assert found["marks"] == 3 * len(swept.records)
    assert (found["covered"], found["outside"], found["fetched"]) == (0, 0, 0)
    assert (found["before"], found["after"]) == ("hidden", "visible")
    assert re.match(r"\d+: ", found["told"])


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_no_wider_than_its_window(swept, width, tmp_path: Path):
    whole, window, _, small = measured(report(swept), width, tmp_path)
    assert whole == window
    assert small == 0


def test_one_point_of_perfect_recall_is_drawn(swept):
    check(report(replace(swept, records=[record(recall=1.0)])))
    check(report(replace(swept, records=[record(recall=0.0, recall_at_10=0.0)])))


def test_recall_stands_where_its_misses_say(swept):
    curves = curves_of(swept.records, 100, 100)
    assert curves.nines(0.9) == pytest.approx(1)
    assert curves.nines(0.999) == pytest.approx(3)
    assert curves.nines(1.0) == pytest.approx(4.301, abs=1e-3)
    axis = curves.recall_axis([record(recall=0.95), record(recall=1.0)])
    assert list(axis.ticks.values()) == ["0.9", "0.99", "0.999", "1"]
    near = curves.recall_axis([record(recall=0.91), record(recall=0.985)])
    assert list(near.ticks.values()) == ["0.9", "0.95", "0.98"]
    assert near.share(curves.nines(0.985)) == 1
    places = sorted(axis.ticks)
    assert all(b - a > 0.1 * (axis.high - axis.low) for a, b in pairwise(places))


@pytest.mark.parametrize(("k", "asked"), [(1, 1), (5, 100), (100, 20), (100, 100), (1000, 1000)])
@pytest.mark.parametrize("recalls", [[0.0], [0.618], [0.5], [0.9], [0.98], [0.998], [1.0], [0.49, 0.51], [0.2, 1.0]])
def test_an_axis_of_recall_has_two_ticks_and_holds_its_points(recalls, k, asked, swept):
    curves = curves_of(swept.records, k, asked)
    axis = curves.recall_axis([record(recall=recall) for recall in recalls])
    assert len(set(axis.ticks.values())) >= 2
    places = [*axis.ticks, *map(curves.nines, recalls)]
    assert all(axis.low - 1e-9 <= place <= axis.high + 1e-9 for place in places)
    assert all(b - a > 0.1 * (axis.high - axis.low) for a, b in pairwise(sorted(axis.ticks)))


@pytest.mark.parametrize("values", [[3.0], [0.9, 1.1], [2.0, 50.0], [0.004, 900.0], [1.0, 10.0]])
def test_ratios_surround_their_values(values):
    axis = Axis.ratios("ms", values)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 9
    assert {axis.low, axis.high} <= set(axis.ticks)
    assert axis.share(min(values)) <= axis.share(max(values))
