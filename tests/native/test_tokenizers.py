"""Tokenizers in C++ against the tokenizers package: the same ids, for every kind that is supported, or a refusal."""

from __future__ import annotations

import copy
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export import UsageError
from fllm_export.prompt import Prompt, load_tokenizer

tokenizers = pytest.importorskip("tokenizers")

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

HARD = [
    "a",
    " ",
    "\u00a0x",
    "naïve café — ÀÉÎÕÜ ﬁne ß ẞ İstanbul ı ſ K Å",
    "e\u0301\u0323 \u0323\u0301e q\u0307\u0323 \u1e9b\u0323",
    "한국어 각 \u1100\u1161\u11a8 \u1112\u1161\u11ab 漢字かな交じり文 カタカナ ｶﾀｶﾅ \uf900\ufa0e 𠀀𪛖",
    "👩‍👩‍👧‍👦🏳️‍🌈 ❤️ ☃ 1️⃣ ½ ² Ⅷ ٣ ४ 𝟘",
    "tabs\tand\nlines\r\nand\u2028separators\u2029 \u0085 \u200b\u200d\ufeff \u3000wide",
    "I'll we've they're it's 'S 'LL 'Re 'VE can't'd x'm '\u017f",
    "  leading   many   spaces   ",
    "\n\n \n x \r\n\r\n  y\n",
    "12345 6 78 9.10 1,000 v2.0 a1b22c333",
    "!!! ... ?! [MASK] [SEP] <s> </s> <|im_start|> ``quotes'' $€£¥ a_b-c/d\\e",
    "\x01\x02\x7f\x80\x9f\xad\ufffd control \ue000 private \U000e0001",
    "x" * 101 + " " + "y" * 100 + " " + "z" * 3000,
    "עברית العربية हिन्दी ไทย ქართული Ελληνικά Ὀδυσσεύς Кириллица й ё",
]


@pytest.fixture(scope="session")
def smollm2_json(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("smollm2")
    transformers.AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name).save_pretrained(path)
    return path / "tokenizer.json"


@pytest.fixture(scope="session")
def bpe_json(smollm2_json: Path) -> dict[str, Any]:
    return json.loads(smollm2_json.read_text())


@pytest.fixture(scope="session")
def bert_json(minilm_dir: Path) -> dict[str, Any]:
    return json.loads((minilm_dir / "tokenizer.json").read_text())


@pytest.fixture(scope="session")
def small_bpe_json(bpe_json: dict[str, Any]) -> dict[str, Any]:
    vocabulary = {token: i for token, i in bpe_json["model"]["vocab"].items() if i < 300}
    return {**bpe_json, "model": {**bpe_json["model"], "vocab": vocabulary, "merges": []}}


Bundle = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Writes a directory with just what a tokenizer needs of a bundle."""

    def write(tokenizer: dict[str, Any], **prompt: Any) -> Path:
        wanted = {"template": "{text}", "max_length": 1 << 16, "padding_side": "left", "pad_id": 0, **prompt}
        (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
        manifest = {"format_version": 1, "reader_features": [], "dim": 4, "prompt": wanted}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        return tmp_path

    return write


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(**fields: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **fields}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


BYTE_LEVEL_KINDS: dict[str, dict[str, Any]] = {
    "as is": {},
    "prefix": {"pre_tokenizer": byte_level(add_prefix_space=True), "post_processor": byte_level(add_prefix_space=True)},
    "gpt2 split": {"pre_tokenizer": sequence(split(GPT2), byte_level(use_regex=False))},
    "llama3": {
        "pre_tokenizer": sequence(split(LLAMA3), byte_level(use_regex=False)),
        "post_processor": {
            "type": "Sequence",
            "processors": [
                byte_level(add_prefix_space=True),
                {
                    "type": "TemplateProcessing",
                    "single": [
                        {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
                        {"Sequence": {"id": "A", "type_id": 0}},
                    ],
                    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                    "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
                },
            ],
        },
    },
    "qwen2": {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": sequence(split(QWEN2), byte_level(use_regex=False)),
        "post_processor": byte_level(trim_offsets=False),
    },
    "digits": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, byte_level())},
    "digit runs": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, byte_level())},
}

BERT_KINDS: dict[str, dict[str, Any]] = {
    "as is": {},
    "cased": {"lowercase": False},
    "accents kept": {"strip_accents": False},
    "cased without accents": {"lowercase": False, "strip_accents": True},
    "raw": {"clean_text": False, "handle_chinese_chars": False},
}


class Pair:
    """The same tokenizer twice: the tokenizers package's, and libfllm's."""

    def __init__(self, native: Any, directory: Path) -> None:
        self.python = load_tokenizer(directory / "tokenizer.json")
        self.native = native.tokenizer(directory)
        self.error = native.Error

    def check(self, texts: list[str]) -> None:
        texts = [text for text in texts if text.strip()]
        if not texts:
            return
        wanted = {text: encoding.ids for text, encoding in zip(texts, self.python.encode_batch(texts), strict=True)}
        some = [text for text, ids in wanted.items() if ids]
        if some:
            found = self.native.encode(some, stride=max(map(len, wanted.values())))
            for text, ids in zip(some, found, strict=True):
                assert ids == wanted[text], repr(text)
        for text in wanted.keys() - set(some):
            # A vocabulary may lack the bytes of a control character.
            with pytest.raises(self.error, match="has no tokens"):
                self.native.encode([text])


@pytest.fixture(params=list(BYTE_LEVEL_KINDS))
def byte_pair(request: pytest.FixtureRequest, native: Any, bpe_json: dict[str, Any], bundle: Bundle) -> Pair:
    return Pair(native, bundle({**bpe_json, **BYTE_LEVEL_KINDS[request.param]}))


@pytest.fixture(params=list(BERT_KINDS))
def bert_pair(request: pytest.FixtureRequest, native: Any, bert_json: dict[str, Any], bundle: Bundle) -> Pair:
    normalizer = {**bert_json["normalizer"], **BERT_KINDS[request.param]}
    return Pair(native, bundle({**bert_json, "normalizer": normalizer}))


def random_texts(seed: int, count: int) -> list[str]:
    """Texts of characters from all planes, and of neighbours in the same block."""
    generator = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        start = int(generator.integers(1, 0x20000 if generator.random() < 0.9 else 0x110000))
        width = int(generator.choice([0x60, 0x400, 0x11000]))
        codes = (start + generator.integers(0, width, 40)) % 0x110000
        common = generator.choice([32, 32, 39, 10, 13, 97, 101, 48, 0x301, 0x323, 0x4E00], 40)
        codes = np.where(generator.random(40) < 0.4, common, codes)
        texts.append("".join(chr(c) for c in codes if not 0xD800 <= c <= 0xDFFF))
    return texts


def every_character() -> list[str]:
    """Each code point between letters, a few to a text."""
    codes = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF and unicodedata.category(chr(c)) != "Co"]
    return ["".join(f" e{chr(c)}1{chr(c)}" for c in codes[i : i + 64]) for i in range(0, 0x33480, 64)]


def test_byte_level_ids_are_equal(byte_pair: Pair) -> None:
    byte_pair.check(HARD + random_texts(1, 600))


def test_wordpiece_ids_are_equal(bert_pair: Pair) -> None:
    bert_pair.check(HARD + random_texts(2, 600))


def test_every_character(native: Any, bert_json: dict[str, Any], bpe_json: dict[str, Any], bundle: Bundle) -> None:
    Pair(native, bundle(bert_json)).check(every_character())
    Pair(native, bundle({**bpe_json, **BYTE_LEVEL_KINDS["qwen2"]})).check(every_character())


@pytest.mark.parametrize("kind", ["bert", "bpe"])
def test_titles(kind: str, native: Any, shared_data: Path, request: pytest.FixtureRequest, bundle: Bundle) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = [
        line
        for path in sorted(shared_data.glob("*/items.parquet"))
        for column in ("title", "text")
        if column in (table := parquet.read_table(path)).column_names
        for line in table[column].to_pylist()[:3000]
    ]
    assert lines
    Pair(native, bundle(request.getfixturevalue(f"{kind}_json"))).check(lines)


@pytest.mark.parametrize("kind", ["bert", "bpe"])
def test_any_text(kind: str, native: Any, request: pytest.FixtureRequest, bundle: Bundle) -> None:
    pair = Pair(native, bundle(request.getfixturevalue(f"{kind}_json")))

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.text(max_size=60), min_size=1, max_size=8))
    def check(texts: list[str]) -> None:
        pair.check(texts)

    check()


@pytest.mark.parametrize("kind", ["prefix", "llama3", "qwen2", "as is", "bert"])
def test_truncation_is_equal(
    kind: str, native: Any, bert_json: dict[str, Any], bpe_json: dict[str, Any], bundle: Bundle
) -> None:
    # Which tokens belong to the text is decided by their spans, so this compares the spans too.
    template = "An item has the following content: {text} Who would like it?"
    fields = bert_json if kind == "bert" else {**bpe_json, **BYTE_LEVEL_KINDS[kind]}
    texts = [*HARD, *random_texts(3, 40), "  spaced  ", "?", "é" * 30]
    for max_length in (14, 17, 23, 41):
        directory = bundle(fields, template=template, max_length=max_length)
        tokenizer = load_tokenizer(directory / "tokenizer.json")
        prompt = Prompt(template, max_length, "left", 0)
        ours = native.tokenizer(directory)
        for text in (text for text in texts if text.strip()):
            try:
                wanted = prompt.tokenize(tokenizer, [text])
            except UsageError as error:
                with pytest.raises(native.Error, match=re.escape(str(error))):
                    ours.encode([text])
                continue
            assert ours.encode([text]) == wanted, repr(text)


def added(content: str, identity: int, **fields: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": identity, "content": content, **flags, **fields}


def test_added_tokens(native: Any, bert_json: dict[str, Any], bpe_json: dict[str, Any], bundle: Bundle) -> None:
    for fields in (bert_json, bpe_json):
        size = len(fields["model"]["vocab"])
        made = copy.deepcopy(fields)
        made["added_tokens"] += [
            added("<Item>", size),
            added("<Item>s", size + 1),
            added("Café", size + 2, normalized=True, special=False),
            added("<l>", size + 3, lstrip=True),
            added("<r>", size + 4, rstrip=True),
        ]
        texts = [
            "a <Item>x",
            "<Item>s<Item>",
            "un cafe CAFÉ Cafe\u0301 Café",
            "x \t<l> y",
            "x <r>  y <r>\n<l>",
            "<l><r>",
        ]
        Pair(native, bundle(made)).check(texts)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("normalizer: type is 'Lowercase'", {"normalizer": {"type": "Lowercase"}}),
    ("pre_tokenizer: type is 'Metaspace'", {"pre_tokenizer": {"type": "Metaspace"}}),
    ("pattern is", {"pre_tokenizer": sequence(split(r"\w+|\W+"), byte_level(use_regex=False))}),
    ("pre_tokenizer is", {"pre_tokenizer": None}),
    ("model: type is 'Unigram'", {"model": {"type": "Unigram", "vocab": []}}),
    ("post_processor: type is 'Other'", {"post_processor": {"type": "Other"}}),
    ("single_word is True", {"added_tokens": [added("<|im_end|>", 2, single_word=True)]}),
    ("has the id 99999", {"added_tokens": [added("<new>", 99999)]}),
]


@pytest.mark.parametrize(("message", "fields"), REFUSED)
def test_what_is_not_known_is_refused(
    message: str, fields: dict[str, Any], native: Any, small_bpe_json: dict[str, Any], bundle: Bundle
) -> None:
    with pytest.raises(native.Error, match=message) as error:
        native.tokenizer(bundle({**small_bpe_json, **fields}))
    assert error.value.status == 4


@pytest.mark.parametrize("field", ["dropout", "continuing_subword_prefix", "end_of_word_suffix"])
def test_bpe_options_are_refused(field: str, native: Any, small_bpe_json: dict[str, Any], bundle: Bundle) -> None:
    model = {**small_bpe_json["model"], field: 0.5 if field == "dropout" else "x"}
    with pytest.raises(native.Error, match=field):
        native.tokenizer(bundle({**small_bpe_json, "model": model}))


def test_merges_in_both_forms_and_ignored_merges(native: Any, bpe_json: dict[str, Any], bundle: Bundle) -> None:
    model = bpe_json["model"]
    texts = [*HARD, *random_texts(4, 50)]
    joined = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    Pair(native, bundle({**bpe_json, "model": {**model, "merges": joined}})).check(texts)
    half = {**model, "merges": model["merges"][::2], "ignore_merges": True}
    Pair(native, bundle({**bpe_json, "model": half})).check(texts)


@pytest.mark.parametrize("text", ["", "   ", "\x1c\u2003"])
def test_blank_texts_are_refused(text: str, native: Any, bert_json: dict[str, Any], bundle: Bundle) -> None:
    with pytest.raises(native.Error, match="text 0 is empty") as error:
        native.tokenizer(bundle(bert_json)).encode([text])
    assert error.value.status == 2


def test_text_that_is_not_utf8_is_refused(native: Any, bert_json: dict[str, Any], bundle: Bundle) -> None:
    tokenizer = native.tokenizer(bundle(bert_json))
    for text in (b"a\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"abc\xe2\x82"):
        with pytest.raises(native.Error, match="not UTF-8"):
            tokenizer.encode([text])


def test_damaged_files_are_refused(native: Any, bert_json: dict[str, Any], bundle: Bundle) -> None:
    directory = bundle(bert_json)
    whole = (directory / "tokenizer.json").read_bytes()
    for content in (
        b"",
        b"[]",
        b"{",
        whole[: len(whole) // 2],
        b'{"model": {"type": "BPE", "vocab": [], "merges": []}}',
    ):
        (directory / "tokenizer.json").write_bytes(content)
        with pytest.raises(native.Error) as error:
            native.tokenizer(directory)
        assert error.value.status == 4


@pytest.mark.slow
def test_unicode_tables_are_what_the_generator_writes() -> None:
    import runpy

    folder = Path(__file__).parents[2] / "engines" / "libfllm" / "encoder"
    committed = (folder / "unicode_tables.inc").read_text()
    if f"tokenizers {tokenizers.__version__};" not in committed:
        pytest.skip("the tables are of another version of tokenizers")
    assert runpy.run_path(str(folder / "generate_unicode_tables.py"))["tables"]() == committed
