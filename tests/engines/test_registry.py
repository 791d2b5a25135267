from __future__ import annotations

from fllm_export import _core
from fllm_export.engines.registry import ENGINES


def test_both_languages_give_an_engine_the_same_codecs() -> None:
    compiled = {name: codecs for name, codecs, _ in _core.engines()}
    assert {name: set(ENGINES[name].codecs) for name in compiled} == {name: set(c) for name, c in compiled.items()}
    assert next(iter(compiled)) == next(iter(ENGINES)) == "native"
