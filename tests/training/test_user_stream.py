from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from fllm_export.checkpoint import user_files
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import BundleError, UsageError
from fllm_export.pair_files import PairArrays
from fllm_export.table.table import Table
from fllm_export.training import user_stream as module
from fllm_export.training.closed_form import ClosedForm, Setting
from fllm_export.training.interactions import Interactions
from fllm_export.training.landmarks import choose_landmarks
from fllm_export.training.user_stream import UserStream
from fllm_export.training.user_sums import UserItems

USERS, ITEMS, DIM = 700, 60, 12


@pytest.fixture(scope="module")
def pairs():
    generator = np.random.default_rng(0)
    users, items = np.nonzero(generator.random((USERS, ITEMS)) < 0.1)
    order = generator.permutation(len(users))
    return 3 * users[order] + 5, items[order]


@pytest.fixture
def stream(tmp_path, pairs, monkeypatch):
    """Rows of 700 users in blocks of 25, seven files or four shards of them."""
    monkeypatch.setattr(user_files, "_BYTES_PER_FILE", 4 * DIM * 100)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * DIM * 25)
    return made(tmp_path, pairs)


def made(tmp_path, pairs, bias=None, setting=None):
    interactions = Interactions(PairArrays(*pairs), np.arange(ITEMS), tmp_path / "work")
    x = np.random.default_rng(1).standard_normal((ITEMS, 9))
    landmarks = choose_landmarks(x, DIM)
    form = ClosedForm.fit(x[interactions.items], landmarks, interactions.counts, setting or Setting())
    return UserStream(form, interactions, tmp_path / "work", bias)


def truth(stream, pairs):
    ids, places = np.unique(pairs[0], return_inverse=True)
    return ids, stream._form.rows(UserItems.of(places, pairs[1], len(ids)))


class Stop(Exception):
    """What interrupts a run in these tests."""


def stop_after(rows):
    def progress(stage, done, total):
        if done >= rows:
            raise Stop

    return progress


def test_checkpoint_files_hold_every_users_row(tmp_path, stream, pairs):
    ids, rows = truth(stream, pairs)
    stream.write_shards(tmp_path / "out")
    users = UserRows.open(tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 7
    assert np.array_equal(users.ids, ids)
    assert users.bias is None
    assert np.allclose(users.read(0, users.rows), rows, atol=1e-6)


def test_biases_lie_beside_the_rows(tmp_path, stream, pairs):
    bias = np.random.default_rng(0).standard_normal(len(np.unique(pairs[0]))).astype(np.float32)
    biased = made(tmp_path, pairs, bias)
    biased.write_shards(tmp_path / "out")
    assert np.array_equal(UserRows.open(tmp_path / "out").bias, bias)
    biased.write_table(tmp_path / "table", quant="fp32", cluster="no")
    found = np.concatenate([tile.bias for tile in Table(tmp_path / "table").tiles()])
    assert np.array_equal(found, bias)
    with pytest.raises(UsageError, match="bias"):
        made(tmp_path, pairs, bias[1:])


def test_an_interrupted_run_repeats_one_file_at_most(tmp_path, stream, pairs, monkeypatch):
    with pytest.raises(Stop):
        stream.write_shards(tmp_path / "out", stop_after(300))
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("users-*")}
    assert len(first) == 3
    asked = []
    monkeypatch.setattr(
        UserStream, "_rows", lambda self, users, own=UserStream._rows: asked.append(0) or own(self, users)
    )
    again = made(tmp_path, pairs)
    again.write_shards(tmp_path / "out")
    assert len(asked) <= 16 + 3
    for name, changed in first.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == changed
    ids, rows = truth(stream, pairs)
    users = UserRows.open(tmp_path / "out")
    assert np.array_equal(users.ids, ids)
    assert np.allclose(users.read(0, users.rows), rows, atol=1e-6)
    assert not (tmp_path / "out" / ".users.jsonl").exists()


@pytest.mark.parametrize("how", ["damaged", "other rows", "half a file"])
def test_only_whole_files_of_the_same_rows_are_kept(tmp_path, stream, pairs, how):
    with pytest.raises(Stop):
        stream.write_shards(tmp_path / "out", stop_after(300))
    setting = Setting(user_power=0.5) if how == "other rows" else None
    if how == "damaged":
        second = sorted((tmp_path / "out").glob("users-*"))[1]
        second.write_bytes(second.read_bytes()[:-1] + b"x")
    if how == "half a file":
        (tmp_path / "out" / ".users-00004-of-00007.safetensors.abc").write_bytes(b"half")
    again = made(tmp_path, pairs, setting=setting)
    again.write_shards(tmp_path / "out")
    ids, rows = truth(again, pairs)
    users = UserRows.open(tmp_path / "out")
    assert np.array_equal(users.ids, ids)
    assert np.allclose(users.read(0, users.rows), rows, atol=1e-6)
    assert len(list((tmp_path / "out").iterdir())) == 7


def test_files_of_others_are_not_overwritten(tmp_path, stream):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "users-00001-of-00001.safetensors").write_bytes(b"somebody's")
    with pytest.raises(UsageError, match="exists"):
        stream.write_shards(tmp_path / "out")
    (tmp_path / "out" / ".users.jsonl").write_text("{}\n")
    with pytest.raises(BundleError, match="damaged"):
        stream.write_shards(tmp_path / "out")


def test_a_table_holds_every_users_row(tmp_path, stream, pairs):
    options = {"quant": "fp32", "shard_bytes": 4 * DIM * 200, "cluster": "no"}
    with pytest.raises(Stop):
        stream.write_table(tmp_path / "table", stop_after(450), **options)
    layout = made(tmp_path, pairs).write_table(tmp_path / "table", **options)
    ids, rows = truth(stream, pairs)
    assert layout.rows == len(ids)
    assert len(layout.shards) > 2
    found = list(Table(tmp_path / "table").decoded())
    assert np.array_equal(np.concatenate([part for part, _ in found]), ids)
    assert np.allclose(np.concatenate([part for _, part in found]), rows, atol=1e-6)


def test_large_contributions_are_mapped_from_a_file(tmp_path, stream, pairs, monkeypatch):
    in_memory = stream.contributions.copy()
    monkeypatch.setattr(module, "_MAPPED_BYTES", 100)
    mapped = made(tmp_path, pairs)
    assert np.array_equal(mapped.contributions, in_memory)
    assert isinstance(mapped.contributions, np.memmap)
    assert mapped.key == stream.key
    for (_, ours), (_, theirs) in zip(mapped.chunks(), stream.chunks(), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_form_of_other_interactions_is_refused(tmp_path, stream, pairs):
    fewer = Interactions(PairArrays(pairs[0][:900], pairs[1][:900]), np.arange(ITEMS), tmp_path / "other")
    with pytest.raises(UsageError, match="counts"):
        UserStream(stream._form, fewer, tmp_path / "other")
