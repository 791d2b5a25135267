"""Arguments of user tables and runtimes: taken where the meaning is plain, else named in a UsageError."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import Bundle, Runtime, UsageError, UserTable, publish

from ..test_arguments import Series

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.standard_normal((40, 8)).astype(np.float32)
IDS = np.arange(100, 180, 2)
Z = GENERATOR.standard_normal((2, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> UserTable:
    return UserTable.create(tmp_path_factory.mktemp("table") / "t", ROWS, IDS)


def tensor(values: Any) -> Any:
    return pytest.importorskip("torch").tensor(values)


def column(values: Any) -> np.ndarray:
    """Return a 1-d array of objects, as a frame's column of vectors or of nullable integers is."""
    made = np.empty(len(values), object)
    made[:] = list(values)
    return made


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        (lambda: ROWS.tolist(), IDS.tolist()),
        (lambda: list(ROWS), tuple(IDS)),
        (lambda: ROWS.astype(np.float64), IDS.astype(np.uint16)),
        (lambda: Series(ROWS), Series(IDS)),
        (lambda: Series(column(ROWS)), column(IDS)),
        (lambda: Series(ROWS.astype(object)), IDS),
        (lambda: tensor(ROWS).requires_grad_(), IDS.astype(object)),
        (lambda: [ROWS[:7], ROWS[7:7], tensor(ROWS[7:])], range(100, 180, 2)),
        (lambda: (part for part in np.split(ROWS, 4)), iter(IDS.tolist())),
    ],
)
def test_rows_and_ids_in_any_container(table: UserTable, tmp_path: Path, rows: Callable[[], Any], ids: Any) -> None:
    made = UserTable.create(str(tmp_path / "t"), rows(), ids, shard_bytes=np.int64(1 << 20))
    found, expected = made.topk(Z, 5), table.topk(Z, 5)
    assert found.user_ids.tolist() == expected.user_ids.tolist()
    assert found.scores.tolist() == expected.scores.tolist()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": "rows.npy"}, r"rows \(one per user\) is 'rows\.npy'; expected an array"),
        ({"rows": ["ab", "cd"]}, r"rows \(one per user\) is 'ab'"),
        ({"rows": np.array([["a"] * 8] * 40)}, r"rows \(one per user\) is <U1"),
        ({"rows": ROWS.astype(complex)}, r"rows \(one per user\) is complex128"),
        ({"rows": {1: ROWS}}, r"rows \(one per user\) is a dict"),
        ({"rows": 5}, r"rows \(one per user\) has the shape \[\]"),
        ({"rows": [[1.0, 2.0], [3.0]]}, r"rows \(one per user\) is a list that NumPy cannot read"),
        ({"ids": IDS.astype(np.float64)}, "ids are float64"),
        ({"ids": [str(i) for i in IDS]}, "ids are <U3"),
        ({"ids": np.full(40, 1.9, object)}, r"ids\[0\] is 1\.9"),
        ({"ids": [datetime.date(2020, 1, 1)] * 40}, r"ids\[0\] is datetime\.date"),
        ({"bias": ["x"] * 40}, "bias is <U1"),
        ({"items": "z"}, "items is 'z'"),
        ({"items": Z[:, :3]}, r"items has the shape \[2, 3\]"),
        ({"quant": ["int8"]}, "no codec"),
        ({"shard_bytes": True}, "shard_bytes is True"),
        ({"sketch": True}, "sketch is True"),
        ({"cluster": None}, "cluster is None"),
        ({"directory": None}, "directory is None"),
        ({"generation": 0}, "generation is 0"),
        ({"generation": 1.5}, r"generation is 1\.5"),
        ({"generation": 1 << 63}, "expected an integer from 1 to 9007199254740992"),
    ],
)
def test_a_creation_names_the_argument(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        UserTable.create(**{"directory": tmp_path / "t", "rows": ROWS, **changes})


def test_the_largest_generation(tmp_path: Path) -> None:
    table = UserTable.create(tmp_path / "t", ROWS, generation=np.int64(1 << 53))
    assert table.topk(Z, 1).generation == table.generation == 1 << 53


@pytest.mark.parametrize(
    ("given", "words"),
    [((None, "a"), "new is None"), (("a", 5), "place is 5"), (("a", "b", 1), "keep is 1; expected True or False")],
)
def test_a_publication_names_the_argument(given: tuple[Any, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        publish(given[0], given[1], **({"keep": given[2]} if len(given) > 2 else {}))


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "\u00b2", "9" * 5000, "1025"])
def test_a_variable_of_the_environment_that_is_no_such_integer(
    table: UserTable, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLLM_NUM_THREADS", text)
    with pytest.raises(UsageError, match=r"FLLM_NUM_THREADS is .*; expected an integer from 1 to 1024"):
        UserTable.open(table.directory)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"directory": 5}, "directory is 5"),
        ({"engine": 5}, "engine is 5; expected one of native"),
        ({"engine": ["native"]}, "engine is"),
        ({"engine": ""}, "engine is ''"),
        ({"threads": 1.0}, r"threads is 1\.0"),
        ({"threads": 1 << 40}, "threads is 1099511627776; expected an integer from 1 to 1024"),
        ({"head": b"x"}, "head is b'x'"),
        ({"resident": 1}, "resident is 1; expected True or False"),
        ({"pin_threads": "yes"}, "pin_threads is 'yes'"),
        ({"batch_window_us": 0.5}, r"batch_window_us is 0\.5"),
        ({"batch_window_us": 1 << 40}, "batch_window_us is 1099511627776"),
        ({"hugepages": True}, "no option 'hugepages'; expected one of resident, pin_threads, batch_window_us"),
        ({"engine": "numpy", "resident": True}, "resident given for the engine `numpy`"),
    ],
)
def test_an_opening_names_the_argument(table: UserTable, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        UserTable.open(**{"directory": table.directory, **changes})


def test_the_options_of_the_native_engine_change_no_answer(table: UserTable) -> None:
    opened = UserTable.open(
        table.directory,
        engine="native",
        threads=np.int64(1),
        resident=np.True_,
        pin_threads=True,
        batch_window_us=np.int32(50),
    )
    assert opened.topk(Z, 9).user_ids.tolist() == table.topk(Z, 9).user_ids.tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"z": Z.tolist()},
        {"z": Z.astype(np.float64)},
        {"z": Series(Z)},
        {"z": Series(column(Z))},
        {"z": lambda: tensor(Z).requires_grad_()},
        {"k": np.int64(7)},
        {"k": lambda: tensor(7)},
        {"seed": np.uint64(3)},
        {"seed": np.array([3, 3])},
        {"seed": (3, np.int8(3))},
        {"seed": Series([3, 3])},
        {"seed": lambda: tensor([3, 3])},
        {"mode": np.str_("sample")},
        {"exact": np.True_},
        {"budget_ms": np.float32(1e9)},
        {"budget_ms": 10**9},
        {"filter": None, "log_probs": "exact"},
    ],
)
def test_a_search_by_values_of_numpy_and_torch(table: UserTable, changes: dict[str, Any]) -> None:
    given = {"z": Z, "k": 7, "mode": "sample", "seed": 3, **changes}
    found = table.topk(**{name: value() if callable(value) else value for name, value in given.items()})
    assert found.user_ids.tolist() == table.topk(Z, 7, mode="sample", seed=3).user_ids.tolist()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"z": "text"}, r"z \(item vectors\) is 'text'"),
        ({"z": [["1"] * 8]}, r"z \(item vectors\) is an array of <U1"),
        ({"z": [Z[0], Z[1][:3]]}, r"z \(item vectors\) is a list that NumPy cannot read"),
        ({"z": np.stack([Z[0], np.full(8, np.nan)])}, r"z \(item vectors\) has a vector that is not finite, number 1"),
        ({"z": np.full((1, 8), 1e39)}, r"z \(item vectors\) has a vector that is not finite, number 0"),
        ({"z": np.array([*Z[0][:7], None])}, r"z \(item vectors\) is an array of object"),
        ({"z": Series(column([Z[0], Z[1][:3]]))}, r"z \(item vectors\) is a list that NumPy cannot read"),
        ({"z": np.empty((0, 8))}, r"z \(item vectors\) has the shape \[0, 8\]"),
        ({"k": "7"}, "k is '7'"),
        ({"k": None}, "k is None"),
        ({"mode": ["topk"]}, "mode is"),
        ({"seed": 1.0}, r"seed is 1\.0"),
        ({"seed": "3"}, "seed is '3'"),
        ({"seed": [0, 1.5]}, r"seed\[0\] is"),
        ({"seed": [0, -1]}, r"seed\[1\] is"),
        ({"seed": 1 << 64}, "seed is 18446744073709551616"),
        ({"budget_ms": "5"}, "budget_ms is '5'"),
        ({"budget_ms": -1}, "budget_ms is -1"),
        ({"budget_ms": np.inf}, "budget_ms is inf"),
        ({"exact": 1}, "exact is 1"),
        ({"log_probs": True}, "log_probs is True"),
        ({"log_probs": "exact", "exact": False}, "log_probs is 'exact' while exact is False"),
        ({"filter": [1, 2]}, r"filter is a list; expected what UserTable\.filter returns"),
    ],
)
def test_a_search_names_the_argument(table: UserTable, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        table.topk(**{"z": Z, "k": 5, **changes})


@pytest.mark.parametrize(
    "users",
    [[104, 100, 104, 5], (100, 104), {100, 104}, range(100, 105, 4), Series([100, 104, -1]), np.uint8([100, 104])],
)
def test_a_filter_of_ids_in_any_container(table: UserTable, users: Any) -> None:
    for engine in ("native", "numpy"):
        opened = UserTable.open(table.directory, engine=engine)
        allowed = opened.topk(Z, 40, filter=opened.filter(allow=users)).user_ids
        denied = opened.topk(Z, 40, filter=opened.filter(deny=users)).user_ids
        assert {int(user) for user in allowed.flat} == {100, 104, -1}
        assert {int(user) for user in denied.flat} == {*IDS.tolist(), -1} - {100, 104}


def test_an_empty_filter(table: UserTable) -> None:
    assert (table.topk(Z, 3, filter=table.filter(allow=[])).user_ids == -1).all()
    assert table.topk(Z, 3, filter=table.filter(deny=[])).user_ids.tolist() == table.topk(Z, 3).user_ids.tolist()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"allow": [1.0]}, "allow is an array of float64"),
        ({"deny": ["1"]}, "deny is an array of <U1"),
        ({"deny": np.array(["2020-01-01"], "datetime64[D]")}, "deny is an array of datetime64"),
        ({"deny": 5}, r"deny has the shape \[\]"),
        ({"deny": [[1, 2]]}, r"deny has the shape \[1, 2\]"),
        ({"deny": [True]}, "deny is an array of bool"),
        ({"allow": [1], "deny": [2]}, "either allow= or deny="),
    ],
)
def test_a_filter_names_the_argument(table: UserTable, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        table.filter(**given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bundle": None}, "bundle is None"),
        ({"encoder": ["cpu"]}, "encoder is"),
        ({"encoder": ""}, "encoder is ''; expected one of cpu"),
        ({"engine": "gpu"}, "engine is 'gpu'"),
        ({"resident": "no"}, "resident is 'no'"),
    ],
)
def test_a_runtime_names_the_argument(tiny_bundle: Bundle, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Runtime.open(**{"bundle": tiny_bundle.path, **changes})


def test_a_runtime_takes_texts_in_any_container(tiny_bundle: Bundle) -> None:
    runtime = Runtime.open(tiny_bundle.path, resident=True)
    texts = ["a film", "a book"]
    expected = runtime.topk(texts, 5).user_ids.tolist()
    for given in (tuple(texts), np.array(texts), np.array(texts, object), iter(texts)):
        assert runtime.topk(given, np.int64(5), seed=np.int64(0)).user_ids.tolist() == expected
    for wrong, words in (
        ("a film", "single text"),
        ([], "texts is empty"),
        (5, "texts is a int"),
        ([1], "text 0 is 1"),
    ):
        with pytest.raises(UsageError, match=words):
            runtime.topk(wrong, 5)


def test_seeds_that_no_integer_dtype_holds_together(table: UserTable) -> None:
    together = table.topk(Z[:2], 5, mode="sample", seed=[1, 2**64 - 1]).user_ids
    alone = [table.topk(Z[item], 5, mode="sample", seed=seed).user_ids[0] for item, seed in enumerate([1, 2**64 - 1])]
    np.testing.assert_array_equal(together, alone)
