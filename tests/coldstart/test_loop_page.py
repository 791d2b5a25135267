from __future__ import annotations

from pathlib import Path

import pytest

from fllm_export.coldstart.loop_arms import NO_PAIRS
from fllm_export.coldstart.loop_page import loop_page
from fllm_export.coldstart.loop_result import LoopResult
from fllm_export.coldstart.ranking_tasks import TASKS

from ..drawn import check, drawn

OUTSIDE = """
  const texts = [...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect());
  return [texts.length, texts.filter(a => a.left < 0 || a.right > innerWidth).length,
    document.documentElement.scrollWidth];"""


@pytest.mark.parametrize("width", [1280, 390])
def test_the_words_of_its_charts_are_whole_on_a_telephone(width: int, tmp_path: Path) -> None:
    metrics = {
        arm: [{task: {"recall": value, "ndcg": value, "lists": 9.0} for task in TASKS}]
        for arm, value in ((NO_PAIRS, 0.1), ("model", 0.15))
    }
    text = loop_page("The loop", {"users": "9"}, LoopResult("lightgcn", "b", 20, 1, metrics, {"model": {"k": 20.0}}))
    check(text)
    assert text.count("The red line in each row is the mean without pseudo-interactions.") == 2
    texts, outside, whole = drawn(text, width, tmp_path, OUTSIDE)
    assert texts > 8
    assert (outside, whole) == (0, width)
