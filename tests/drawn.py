"""What tests of pages share: is a page whole, and how does a browser draw it?"""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "rect", "line", "circle", "br"}


class Balance(HTMLParser):
    """Collects tags that are closed wrongly, and everything that would be fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.outside += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def check(text: str) -> None:
    """Check that a page is balanced and needs nothing but itself."""
    balance = Balance()
    balance.feed(text)
    assert not balance.wrong
    assert not balance.open
    assert not balance.outside
    assert "<script" not in text
    assert "url(" not in text


MEASURE = """
  const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
  const small = [...document.querySelectorAll('svg text, p, td, th, li')].filter(
    e => parseFloat(getComputedStyle(e).fontSize) < 12);
  return [document.documentElement.scrollWidth, innerWidth, wide.length, small.length];"""


def measured(text: str, width: int, folder: Path) -> tuple[int, int, int, int]:
    """Draw a page in Chromium; return its width, the window's, and how many elements stick out or are too small."""
    whole, window, wide, small = drawn(text, width, folder, MEASURE)
    return whole, window, wide, small


def drawn(text: str, width: int, folder: Path, measure: str) -> list[int]:
    """Draw a page in Chromium, in a window of a width; return the integers that a body of JavaScript returns."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium to draw pages with")
    file = folder / "page.html"
    script = (
        "<script>addEventListener('load', () => {"
        f"document.title = ['measured', ...(() => {{{measure}}})(), 'end'].join(' ') }})</script></body>"
    )
    # A window of Chromium is at least 500 pixels wide; a frame in it may be narrower.
    file.write_text(text.replace("</body>", script))
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="page.html" width="{width}" height="20000" frameborder="0"></iframe>'
        "<script>document.getElementById('f').onload = e => { document.body.append(e.target.contentDocument.title) }"
        "</script>"
    )
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1400,2000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"measured ([\d ]+) end", done.stdout)
    assert found, done.stderr[-2000:]
    return [int(number) for number in found[1].split()]
