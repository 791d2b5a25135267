from __future__ import annotations

import importlib.util
import re
import struct
from pathlib import Path

import pytest

from fllm_export.sweep import output, raster
from fllm_export.sweep.drawing import drawing

from .records import record, sweep_of


@pytest.fixture
def swept():
    return sweep_of(record("a", recall=0.9), record("b", recall=0.99, median_ms=20.0))


@pytest.fixture
def resvg():
    return pytest.importorskip("resvg_py")


def test_the_picture_is_drawn_in_pixels_with_its_words(swept, resvg):
    picture = drawing(swept)
    pixels = raster.png(picture)
    if pixels is None:
        pytest.skip("no font is installed")
    width, height = (int(re.search(rf'{side}="(\d+)"', picture)[1]) for side in ("width", "height"))
    assert pixels.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", pixels[16:24]) == (2 * width, 2 * height)
    assert pixels != raster.png(re.sub("<text.*?</text>", "", picture))
    assert pixels != raster.png(re.sub("<path.*?/>", "", picture))


def test_the_picture_needs_no_variables(swept):
    picture = drawing(swept)
    assert "var(" not in picture
    assert "--" not in picture


def test_a_machine_without_fonts_gets_no_picture_without_words(swept, resvg, monkeypatch):
    draw = resvg.svg_to_bytes
    monkeypatch.setattr(resvg, "svg_to_bytes", lambda **given: draw(**given, skip_system_fonts=True))
    assert raster.png(drawing(swept)) is None


def test_a_picture_of_an_earlier_sweep_does_not_stay(swept, tmp_path: Path, monkeypatch):
    (tmp_path / "sweep.png").write_bytes(b"earlier")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    output.write(swept, tmp_path)
    assert (tmp_path / "sweep.svg").exists()
    assert not (tmp_path / "sweep.png").exists()


def test_the_files_of_a_sweep_hold_the_picture(swept, tmp_path: Path, resvg):
    output.write(swept, tmp_path)
    expected = raster.png(drawing(swept))
    assert ((tmp_path / "sweep.png").read_bytes() if expected else None) == expected
