"""The page at /, as it is served and as a browser shows it."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from fllm_export import Runtime
from fllm_export.bundle.bundle import Bundle
from fllm_export.server.page import PAGE

from ..drawn import drawn
from .serving import Program, call

ANSWER = """
  const user = (user_id, score, p) => ({user_id, score, log_prob: Math.log(p)});
  const users = [user(1234567, 104.27261, 0.0015), user(7, -4.2, 0.00000123)];
  const item = {users, complete: true, exact: true, coverage: 1};
  show({items: [item], generation: 1, timings_ms: {scan: 1}}, 0.01);
  const cells = [...document.querySelectorAll('td, th')].map(cell => cell.getBoundingClientRect());
  const broken = cells.filter(cell => cell.height > 40), outside = cells.filter(cell => cell.right > innerWidth - 15);
  return [document.documentElement.scrollWidth, innerWidth, cells.length, broken.length, outside.length];"""


def test_the_page_is_whole_and_may_fetch_from_its_server_alone(serve: Any) -> None:
    async def work(app: Any, _: Any) -> None:
        found = await call(app, "GET", "/")
        text = found.body.decode()
        assert found.headers["content-type"] == "text/html; charset=utf-8"
        assert not re.findall(r"""(?:src|href)\s*=|url\(|https?://|@import""", text)
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "connect-src 'self'" in policy
        assert "unsafe" not in policy
        assert text.count("<script>") == text.count("<style>") == 1
        assert " on" not in re.sub(r"<script>.*</script>|<style>.*</style>", "", text, flags=re.DOTALL).lower()

    serve(work)


@pytest.fixture(scope="module")
def bundle_program(tiny_bundle: Bundle) -> Iterator[Program]:
    program = Program(tiny_bundle.path)
    program.wait_for("ready")
    yield program
    assert program.stop() == 0


def shown(program: Program, folder: Path, **asked: Any) -> str:
    """Return the page as it is after its question was answered."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium to draw pages with")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    url = f"http://127.0.0.1:{program.port}/?{urlencode(asked)}"
    done = subprocess.run(
        [*command, "--virtual-time-budget=10000", "--window-size=900,1200", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "<h1>" in done.stdout, done.stderr[-2000:]
    return html.unescape(done.stdout)


def test_a_text_is_answered_with_users_probabilities_and_timings(
    bundle_program: Program, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    text = "a paper <b>on</b> graphs & genes"
    wanted = Runtime.open(tiny_bundle.path, threads=1).topk([text], 7)
    page = shown(bundle_program, tmp_path, text=text, k=7)
    rows = re.findall(r"<tr><td>(\d+)</td><td>(\d+)</td><td>(-?[\d.]+)</td><td>([^<]+)</td>", page)
    assert [int(row[1]) for row in rows] == wanted.user_ids[0].tolist()
    assert [row[2] for row in rows] == [f"{score:.4f}" for score in wanted.scores[0]]
    assert all(row[3].endswith(" %") for row in rows)
    told = re.search(r'role="status">([^<]*)<', page)
    assert told is not None
    for word in ("Exact.", "Generation 1.", "tokenise", "encode", "scan", "ms in all."):
        assert word in told[1]


@pytest.mark.parametrize("width", [360, 1280])
def test_no_number_is_broken_in_a_narrow_window(width: int, tmp_path: Path) -> None:
    whole, window, cells, broken, outside = drawn(PAGE, width, tmp_path, ANSWER)
    assert whole == window == width
    assert (cells, broken, outside) == (15, 0, 0)


def test_a_failure_is_shown(bundle_program: Program, tmp_path: Path) -> None:
    page = shown(bundle_program, tmp_path, text="a", k=401)
    assert "k is 401; expected an integer from 1 to 400, the users of this table." in page
    assert re.search(r'<table id="users" hidden', page)
