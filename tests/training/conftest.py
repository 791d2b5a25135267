"""A synthetic data set whose texts say who likes an item."""

from __future__ import annotations

import numpy as np
import pytest

TOPICS = (
    "novel sea running distances long",
    "paper matrix factorization systems feedback",
    "animation comedy children directed Story",
    "gene expression network motifs yeast",
)
USERS, ITEMS, FIRST_USER_ID = 160, 120, 100


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    """A data set directory: 160 users and 120 items in four topics; a user likes two fifths of their topic's items."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    generator = np.random.default_rng(0)
    texts = [" ".join(generator.permutation(TOPICS[item % 4].split())[:3]) for item in range(ITEMS)]
    cold = generator.permutation(ITEMS)[:32]
    rows = []
    for item in range(ITEMS):
        split = "cold_val" if item in cold[:16] else "cold_test" if item in cold[16:] else "train"
        rows += [(FIRST_USER_ID + u, item, split) for u in range(item % 4, USERS, 4) if generator.random() < 0.4]
    users, items, splits = zip(*rows, strict=True)
    path = tmp_path_factory.mktemp("small-dataset")
    parquet.write_table(pa.table({"item_id": range(ITEMS), "text": texts}), path / "items.parquet")
    columns = {"user_id": users, "item_id": items, "split": splits}
    parquet.write_table(pa.table(columns), path / "interactions.parquet")
    return path


@pytest.fixture
def one_thread():
    """One torch thread, so that sums come out the same every time."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
