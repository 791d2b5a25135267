from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fllm_export import UsageError
from fllm_export.prompt import Prompt

WORDS = ["[PAD]", "[CLS]", "[SEP]", "a", "b", "c", "item", ":", "who", "likes", "it", "?"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return made


def words(ids: list[int]) -> str:
    return " ".join(WORDS[i] for i in ids)


@settings(max_examples=200, deadline=None)
@given(text=st.lists(st.sampled_from("abc"), max_size=30), max_length=st.integers(9, 40))
def test_truncation_shortens_the_text_and_nothing_else(text: list[str], max_length: int, tokenizer: Tokenizer) -> None:
    prompt = Prompt("item : {text} who likes it ?", max_length, "left", 0)
    (ids,) = prompt.tokenize(tokenizer, [" ".join(text)])
    kept = text[: max_length - 8]
    assert words(ids) == " ".join(["[CLS]", "item", ":", *kept, "who", "likes", "it", "?", "[SEP]"])


def test_a_template_longer_than_the_limit_is_an_error(tokenizer: Tokenizer) -> None:
    prompt = Prompt("item : {text} who likes it ?", 5, "left", 0)
    with pytest.raises(UsageError, match="the template needs 8 tokens and max_length is 5"):
        prompt.tokenize(tokenizer, ["a b c"])


@pytest.mark.parametrize("template", ["no placeholder", "{text} and {text}"])
def test_the_placeholder_stands_exactly_once(template: str) -> None:
    with pytest.raises(UsageError, match="exactly once"):
        Prompt(template, 10, "left", 0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_goes_to_its_side(side: str) -> None:
    ids, mask = Prompt("{text}", 10, side, 9).batch([[1, 2, 3], [4]])
    row = [9, 9, 4] if side == "left" else [4, 9, 9]
    np.testing.assert_array_equal(ids, [[1, 2, 3], row])
    np.testing.assert_array_equal(mask, [[1, 1, 1], [n != 9 for n in row]])
    assert ids.dtype == mask.dtype == np.int64


def test_an_empty_prompt_is_an_error() -> None:
    bare = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UsageError, match="has no tokens"):
        Prompt("{text}", 10, "left", 0).tokenize(bare, [""])
