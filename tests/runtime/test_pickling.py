"""Tables, runtimes and bundles pickle as path and options, and open again on the other side."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Bundle, BundleError, Runtime, TopK, UserTable

ROWS = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)


def ask_table(table: UserTable) -> TopK:
    return table.topk(ROWS[:2], 5)


def ask_runtime(runtime: Runtime) -> TopK:
    return runtime.topk(["a film", "a book"], 5)


def miss(table: UserTable) -> None:
    table.topk(ROWS[:1], 301)


def assert_same(found: TopK, expected: TopK) -> None:
    assert found.user_ids.tolist() == expected.user_ids.tolist()
    assert found.scores.tolist() == expected.scores.tolist()


def test_a_spawned_process_opens_them_again(tmp_path: Path, tiny_bundle: Bundle) -> None:
    table = UserTable.create(tmp_path / "t", ROWS)
    runtime = Runtime.open(tiny_bundle.path, threads=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert_same(pool.apply(ask_table, (table,)), ask_table(table))
        assert_same(pool.apply(ask_runtime, (runtime,)), ask_runtime(runtime))
        with pytest.raises(Exception, match=r"^k is 301; expected an integer from 1 to 300") as caught:
            pool.apply(miss, (table,))
    assert caught.value.expected == "an integer from 1 to 300, the users of this table"


def test_the_options_travel(tmp_path: Path, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    UserTable.create(tmp_path / "t", ROWS)
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(UserTable.open("t", engine="numpy"))
    monkeypatch.chdir("/")
    monkeypatch.setenv("FLLM_ENGINE", "native")
    table = pickle.loads(sent)
    assert (table.engine, table.directory) == ("numpy", tmp_path / "t")
    filtered = pickle.loads(pickle.dumps(table.filter(allow=[3, 4])))
    assert set(table.topk(ROWS[0], 2, filter=filtered).user_ids[0].tolist()) == {3, 4}
    runtime = pickle.loads(pickle.dumps(Runtime.open(tiny_bundle.path, engine="onnxruntime", encoder="cpu")))
    assert (runtime.users.engine, runtime.encoder) == ("onnxruntime", "cpu")
    assert pickle.loads(pickle.dumps(tiny_bundle)).verify() == tiny_bundle.verify()


def test_what_lies_there_now_is_opened(tmp_path: Path) -> None:
    sent = pickle.dumps(UserTable.create(tmp_path / "t", ROWS))
    (tmp_path / "t").rename(tmp_path / "old")
    with pytest.raises(BundleError, match=r"holds no table\.json"):
        pickle.loads(sent)
    UserTable.create(tmp_path / "t", ROWS[:7])
    assert len(pickle.loads(sent)) == 7
