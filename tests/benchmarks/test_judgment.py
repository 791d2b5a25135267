"""benchmarks/judgment: the questions, P(yes) beside a plain forward pass, the filter, the metrics, and what is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("scipy")

from benchmarks.judgment.journal import Journal  # noqa: E402
from benchmarks.judgment.judge import Judge, batches, common_prefix, single_tokens  # noqa: E402
from benchmarks.judgment.pairs import DRAWN, FILTER, LIKED, Judged, drawn_items  # noqa: E402
from benchmarks.judgment.ranking import auc, interval, precision  # noqa: E402
from benchmarks.judgment.report import ranked, ranking_rows, time_rows, wording_rows  # noqa: E402
from benchmarks.judgment.study import Study  # noqa: E402
from benchmarks.judgment.towers import Towers, text_vectors  # noqa: E402
from benchmarks.judgment.wording import WORDINGS, Wording  # noqa: E402
from fllm_export.checkpoint.pretrained import quiet  # noqa: E402
from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.evaluation.dataset import Dataset, Pairs  # noqa: E402

CHAT = (
    "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)
PROMPTS = [
    "A reader has these papers:\n- gene expression\nWould this reader want it?",
    "A reader has these papers:\n- deep learning\n- the sea\n- network motifs in yeast\nWould this reader want it?",
    "A reader has these papers:\n- shoes\nWould this reader want it?",
]
YES, NO = [7, 30, 41], [9, 52]


def pairs(*found: tuple[int, int]) -> Pairs:
    users, items = np.array(found, np.int64).reshape(-1, 2).T
    return Pairs(users, items)


@pytest.fixture
def dataset() -> Dataset:
    """Six users, four training items in two directions and two cold items, one in each direction."""
    train = pairs((0, 0), (0, 1), (0, 2), (1, 0), (2, 1), (3, 2), (4, 3), (5, 3), (5, 2))
    splits = {"train": train, "warm_val": pairs(), "warm_test": pairs(), "cold_val": pairs((3, 5), (4, 5))}
    texts = ("north", "north too", "east", "east too", "new north", "new east")
    return Dataset(np.arange(6), texts, np.arange(10, 16), {**splits, "cold_test": pairs((0, 4), (4, 4))}, "0" * 64)


@pytest.fixture
def towers(dataset: Dataset) -> Towers:
    return Towers.of(dataset, np.array([[1, 0], [9, 1], [0, 1], [1, 8], [3, 0.2], [0.1, 1]], np.float32))


class Counting:
    """A judge that counts its calls and likes long prompts."""

    tokenizer = SimpleNamespace(apply_chat_template=lambda turns, **_: turns[-1]["content"])

    def __init__(self) -> None:
        self.calls, self.tokens = 0, 0

    def probabilities(self, prompts: list[str]) -> np.ndarray[Any, Any]:
        self.calls += 1
        self.tokens += sum(map(len, prompts))
        return np.array([len(prompt) / 1000 for prompt in prompts])


class Backwards:
    """A model for which the last user is the best for each item."""

    def encode(self, texts: list[str]) -> list[str]:
        return texts

    def topk(self, z: list[str], k: int) -> np.ndarray[Any, Any]:
        return np.tile(np.arange(15, 15 - k, -1), (len(z), 1))

    likely_users = topk


def study(towers: Towers, path: Path) -> Study:
    models: Any = {"backwards": Backwards()}
    judge: Any = Counting()
    return Study(towers, judge, "float32", models, Journal(path / "measured.jsonl"), lambda *_: None)


@pytest.mark.parametrize("wording", WORDINGS.values(), ids=WORDINGS)
def test_a_prompt_holds_the_titles_in_order_and_the_item(tiny_llama_dir: Path, wording: Wording) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_llama_dir)
    tokenizer.chat_template = CHAT
    prompt = wording.prompt(tokenizer, ["first {title}", "second"], "the new one")
    assert "- first {title}\n- second\n" in prompt
    assert prompt.count("the new one") == 1
    assert prompt.endswith("<answer>") == wording.chat
    assert prompt.startswith("<system>") == wording.chat


@pytest.fixture(scope="session")
def tiny_decoder(tiny_llama_dir: Path) -> tuple[Any, Any]:
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(tiny_llama_dir)


def plainly(model: Any, tokenizer: Any, prompt: str, yes: list[int], no: list[int]) -> float:
    """Return P(yes) from one forward pass over one prompt and the softmax over the whole vocabulary."""
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        p = model(input_ids=ids).logits[0, -1].double().softmax(0)
    return float(p[yes].sum() / p[[*yes, *no]].sum())


@pytest.mark.parametrize(
    "prompts",
    [PROMPTS, PROMPTS[:1], [*PROMPTS, "Nothing in common"], [PROMPTS[0]] * 3, PROMPTS * 30],
    ids=["shared beginning", "one", "nothing shared", "all the same", "several batches"],
)
def test_the_probability_of_yes_is_that_of_a_plain_forward_pass(tiny_decoder: Any, prompts: list[str]) -> None:
    model, tokenizer = tiny_decoder
    found = Judge(model, tokenizer, YES, NO).probabilities(prompts)
    expected = {prompt: plainly(model, tokenizer, prompt, YES, NO) for prompt in set(prompts)}
    np.testing.assert_allclose(found, [expected[prompt] for prompt in prompts], rtol=1e-4)
    assert len(set(expected.values())) == len(expected)


def test_what_prompts_share_is_computed_once(tiny_decoder: Any) -> None:
    model, tokenizer = tiny_decoder
    ids = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in PROMPTS]
    shared = common_prefix(ids)
    assert shared > 5
    judge = Judge(model, tokenizer, YES, NO)
    judge.probabilities(PROMPTS)
    tails = [len(each) - shared for each in ids]
    assert judge.tokens == shared + sum(len(rows) * max(tails[row] for row in rows) for rows in batches(tails))
    assert judge.tokens < sum(map(len, ids))


def test_a_shared_beginning_leaves_each_prompt_a_token() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert common_prefix([[1, 2], [1, 2, 4]]) == 1
    assert common_prefix([[1, 2], [3, 2]]) == 0
    assert common_prefix([[1, 2]]) == 0


def test_batches_hold_every_prompt_once_and_few_tokens() -> None:
    lengths = [5, 400, 300, 2000, 6, 500]
    found = list(batches(lengths))
    assert sorted(row for rows in found for row in rows) == list(range(6))
    assert all(len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= 1024 for rows in found)
    assert found == [[0, 4], [2, 1], [5], [3]]


def test_only_words_of_one_token_are_answers(tiny_decoder: Any) -> None:
    tokenizer = tiny_decoder[1]
    one = tokenizer("a", add_special_tokens=False)["input_ids"]
    assert single_tokens(tokenizer, ("a", "a long sentence of many tokens")) == one
    with pytest.raises(ValueError, match="one token"):
        single_tokens(tokenizer, ("a long sentence of many tokens",))


def test_the_filter_and_the_titles_are_those_of_the_training_pairs(towers: Towers) -> None:
    assert set(towers.candidates(4, 2)) == {1, 2}
    assert towers.candidates(5, 6)[-1] == 1
    assert towers.titles(0, 4, 2) == ["north too", "north"]
    assert towers.titles(0, 5, 5) == ["east", "north too", "north"]


def test_vectors_are_kept_and_those_of_another_encoder_refused(dataset: Dataset, tmp_path: Path) -> None:
    lengths: Any = SimpleNamespace(base_vectors=lambda texts: np.array([[len(t), 1] for t in texts], np.float32))
    path = tmp_path / "vectors.npy"
    made = text_vectors(dataset, lengths, path)
    assert made.tolist() == [[len(text), 1] for text in dataset.texts]
    assert np.array_equal(text_vectors(dataset, lengths, path), made)
    np.save(path, made[:, ::-1])
    with pytest.raises(ValueError, match="other vectors"):
        text_vectors(dataset, lengths, path)


def test_the_users_that_are_judged_and_who_is_right(towers: Towers) -> None:
    judged = Judged.of(towers, "cold_test", 4, 2, 3)
    assert judged.sources == [FILTER] * 2 + [LIKED] * 2 + [DRAWN] * 2
    assert set(judged.users[2:4]) == {0, 4}
    assert judged.right.tolist() == [False, False, True, True, False, False]
    assert len(set(judged.users.tolist())) == 6
    assert np.array_equal(Judged.of(towers, "cold_test", 4, 2, 3).users, judged.users)


def test_items_are_drawn_so_that_more_go_on_where_fewer_ended() -> None:
    split = {"cold_val": Pairs(np.zeros(50, np.int64), np.arange(50))}
    some: Any = SimpleNamespace(splits=split)
    assert drawn_items(some, "cold_val", 40)[:7] == drawn_items(some, "cold_val", 7)
    assert len(set(drawn_items(some, "cold_val", 50))) == 50


def test_metrics() -> None:
    assert precision([True, False, True, False], 2) == 0.5
    assert precision([True, False, True, False], 4) == 0.5
    assert auc([0.9, 0.5], [0.5, 0.1]) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    mean, low, high = interval([0, 1] * 200)
    assert mean == 0.5
    # The deviation of the mean is .5 / 20, and 1.96 of them are .049.
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.004)


def test_a_measurement_that_is_there_is_not_made_again(towers: Towers, tmp_path: Path) -> None:
    first = study(towers, tmp_path)
    wording = WORDINGS["item first"]
    records = first.rank("cold_test", 1, [wording], 2, 3, 1)
    first.journal.close()
    again = study(towers, tmp_path)
    assert again.rank("cold_test", 1, [wording], 2, 3, 1) == records
    assert (first.judge.calls, again.judge.calls) == (1, 0)
    again.rank("cold_test", 1, [wording], 1, 3, 1)
    assert again.judge.calls == 1
    with pytest.raises(UsageError, match="another process"):
        Journal(tmp_path / "measured.jsonl")


def test_rankings_of_the_filters_users(towers: Towers, dataset: Dataset, tmp_path: Path) -> None:
    measured = study(towers, tmp_path)
    record = {"split": "cold_test", "item": 4, "users": [1, 2, 0, 3, 5, 4], "sources": [FILTER] * 5 + [DRAWN]}
    record |= {"right": [False, False, True, False, False, False], "yes": [0.1, 0.2, 0.9, 0.3, 0.4, 0.5]}
    found = ranked([record], dataset, measured.models)
    assert found["filter"] == {"precision@5": [0.2]}
    assert found["judge, of the filter's"]["auc"] == [1.0]
    # Users 5 to 0, best first, of whom 4 and 0 are right: one of the first five.
    assert found["backwards, of all users"] == {"precision@5": [0.2], "auc": [0.0]}
    assert found["backwards, of the filter's"] == {"precision@5": [0.2]}
    rows = ranking_rows(found)
    assert rows[1][:3] == ["filter", "1", "0.200 (0.200-0.200)"]
    assert [row[0] for row in rows[1:]] == list(found)


def test_times_are_those_of_the_same_item(towers: Towers, tmp_path: Path) -> None:
    measured = study(towers, tmp_path)
    records = measured.time("cold_test", 1, WORDINGS["plain"], [1, 2], 3)
    assert [record["history"] for record in records] == [1, 2]
    assert records[0]["tokens"] < records[1]["tokens"]
    clock = {"cpu": 2.0, "wall": 4.0}
    fixed = {"precision": "float32", "history": 5, "filter": clock, "judge": {"cpu": 18.0, "wall": 36.0}, "tokens": 9}
    fixed["models"] = {"m": {"cpu": 0.5, "wall": 0.5}}
    row = ["float32", "5", "m", "1", "9", "20.00", "0.5000", "40.00", "0.5000", "40.0", "80.0"]
    assert time_rows([fixed])[1] == row


def test_wordings_are_compared_by_all_their_pairs() -> None:
    records = [
        {"wording": name, "yes": yes, "right": [True, False]}
        for name, yes in (("a", [0.9, 0.1]), ("a", [0.2, 0.4]), ("b", [0.5, 0.5]))
    ]
    first, second = wording_rows(records)
    assert (first["auc"], first["pairs"], second["auc"]) == (0.75, 4, 0.5)
    assert first["yes of right"] == pytest.approx(0.55)


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_gguf")
def test_smollm2_answers_as_in_a_plain_forward_pass(tmp_path: Path) -> None:
    from fllm_export.training.encoders import choose_encoder

    path = choose_encoder("smollm2", tmp_path).path
    judge = Judge.load(path, "float32")
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    wording = WORDINGS["history first"]
    prompts = [wording.prompt(judge.tokenizer, titles, "Network motifs") for titles in (["Yeast genes"], ["Jazz", "A"])]
    yes, no = (single_tokens(judge.tokenizer, words) for words in ((" Yes", "Yes"), (" No", "No")))
    answers = Judge(model, judge.tokenizer, yes, no)
    expected = [plainly(model, judge.tokenizer, prompt, yes, no) for prompt in prompts]
    np.testing.assert_allclose(answers.probabilities(prompts), expected, rtol=1e-3)
    assert ((judge.probabilities(prompts) > 0) & (judge.probabilities(prompts) < 1)).all()
