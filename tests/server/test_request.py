from __future__ import annotations

import json

import numpy as np
import pytest

from fllm_export.errors import UsageError
from fllm_export.server.options import ServerOptions
from fllm_export.server.request import Question

LIMITS = ServerOptions(max_items=20, max_answer_users=1000, max_text_chars=50)


def parsed(**document: object) -> Question:
    return Question.parse(json.dumps(document).encode(), LIMITS)


def test_each_kind_of_item() -> None:
    assert (parsed(text="a").source, parsed(text="a").items) == ("texts", ["a"])
    assert len(parsed(texts=["a", "b"])) == 2
    assert parsed(token_ids=[[1, 2], [3]]).items == [[1, 2], [3]]
    found = parsed(item_vectors=[[1, 2.5], [3, -4]])
    assert found.items.dtype == np.float32
    assert found.items.tolist() == [[1, 2.5], [3, -4]]


def test_options_and_their_defaults() -> None:
    found = parsed(text="a")
    assert (found.k, found.mode, found.seed, found.budget_ms, found.exact, found.log_probs) == (
        100,
        "topk",
        0,
        None,
        None,
        None,
    )
    found = parsed(text="a", k=3, mode="sample", seed=[7], budget_ms=2.5, exact=True, log_probs="none", deny=[5, 2])
    assert (found.k, found.mode, found.seed, found.budget_ms) == (3, "sample", [7], 2.5)
    assert (found.exact, found.log_probs, found.listed.tolist(), found.deny) == (True, "none", [5, 2], True)
    assert not parsed(text="a", allow=[]).deny
    assert parsed(text="a", allow=None, deny=None, budget_ms=None, exact=None).listed is None


BAD = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b"[" * 90_000, "nested deeper than 64"),
    (b'{"k": ' + b"[" * 90_000, "nested deeper than 64"),
    (b'{"text": "a", "k": ' + b"9" * 5000 + b"}", "not JSON"),
    (b'{"text": "\\ud800"}', "not Unicode"),
    (b'{"k": 1, "k": 2, "text": "a"}', "'k' stands twice"),
    (b"[]", "not a JSON object"),
    (b"{}", "exactly one"),
    (b'{"text": "a", "texts": ["b"]}', "exactly one"),
    (b'{"text": 3}', "expected a string"),
    (b'{"text": "' + b"a" * 51 + b'"}', "51 characters"),
    (b'{"texts": "a"}', "texts is a string; expected a list"),
    (b'{"texts": []}', "0 items; expected 1 to 20"),
    (json.dumps({"texts": ["a"] * 21}).encode(), "21 items"),
    (b'{"text": "a", "k": 0}', "k is 0"),
    (b'{"text": "a", "k": -1}', "k is -1"),
    (b'{"text": "a", "k": 1.5}', "k is 1.5"),
    (b'{"text": "a", "k": true}', "k is true; expected an integer"),
    (b'{"text": "a", "k": null}', "k is null; expected an integer"),
    (b'{"text": "a", "seed": {"a": null}}', r'seed is {"a":null}; expected an integer, or a list'),
    (b'{"text": "a", "exact": "yes"}', 'exact is "yes"; expected true, false or null'),
    (b'{"text": "a", "log_probs": false}', "log_probs is false; expected"),
    (b'{"text": "a", "mode": null}', "mode is null; expected"),
    (b'{"texts": null}', "texts is null; expected a list"),
    (b'{"text": "a", "k": 1001}', "at most 1000"),
    (b'{"texts": ["a", "b"], "k": 501}', "at most 1000"),
    (b'{"text": "a", "seed": -1}', "seed is -1"),
    (b'{"text": "a", "seed": ["1"]}', "not an integer"),
    (b'{"text": "a", "budget_ms": "soon"}', "budget_ms is"),
    (b'{"text": "a", "budget_ms": NaN}', "budget_ms is nan"),
    (b'{"text": "a", "exact": 1}', "exact is 1"),
    (b'{"text": "a", "refine": -1}', "refine is -1"),
    (b'{"text": "a", "k": 10, "refine": 101}', "times refine is 1010"),
    (b'{"text": "a", "user": 1}', "'user' is unknown"),
    (b'{"text": "a", "allow": [1], "deny": [2]}', "both allow and deny"),
    (b'{"text": "a", "allow": 3}', "allow is 3; expected a list of user ids"),
    (b'{"text": "a", "deny": [1.0]}', "deny is not a list of integers"),
    (b'{"text": "a", "deny": [9223372036854775808]}', "not a user id"),
    (b'{"item_vectors": [["1"]]}', "not a list of numbers"),
    (b'{"item_vectors": [[true]]}', "not a list of numbers"),
    (b'{"item_vectors": [[1, 2], [1]]}', "1 values; expected 2"),
    (b'{"item_vectors": [3]}', "not a list of numbers"),
    (b'{"item_vectors": [[1e39]]}', "not finite"),
    (b'{"item_vectors": [[NaN]]}', "not finite"),
    (b'{"item_vectors": [[1' + b"0" * 400 + b"]]}", "not finite"),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_what_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Question.parse(body, LIMITS)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["max_items", "max_batch", "client_timeout_s"])
def test_limits_are_checked(name: str) -> None:
    with pytest.raises(UsageError):
        ServerOptions(**{name: 0})
    with pytest.raises(UsageError):
        ServerOptions(**{name: "3"})
