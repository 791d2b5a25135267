"""What a frozen bundle or table must answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from fllm_export import TopK


def assert_as_frozen(answer: TopK, items: list[dict[str, Any]]) -> None:
    """Compare users, order, scores and denominators with the items of ``TopK.to_dict`` that were written down."""
    for item, wanted in enumerate(items):
        assert answer.user_ids[item].tolist() == [user["user_id"] for user in wanted["users"]]
        np.testing.assert_allclose(answer.scores[item], [user["score"] for user in wanted["users"]], rtol=1e-4)
        np.testing.assert_allclose(answer.logsumexp[item], wanted["logsumexp"], rtol=1e-5)
