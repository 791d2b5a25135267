from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fllm_export.evaluation.dataset import Pairs  # noqa: E402
from fllm_export.evaluation.negatives import Positives  # noqa: E402

USERS = 40


def test_negatives_are_users_that_did_not_like_the_item():
    train = Pairs(
        users=np.repeat(np.arange(USERS), 15), items=np.concatenate([np.arange(u % 4, 60, 4) for u in range(USERS)])
    )
    known = Positives(torch.from_numpy(train.users), torch.from_numpy(train.items), USERS)
    items = torch.from_numpy(np.repeat(train.items, 20))
    users = known.draw_negatives(items, torch.Generator().manual_seed(0))
    assert not known.holds(users, items).any()
    assert known.holds(torch.from_numpy(train.users), torch.from_numpy(train.items)).all()
    assert len(users.unique()) == USERS
