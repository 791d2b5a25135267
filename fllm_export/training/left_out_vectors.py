"""Vectors of training items as if they were cold: each without what its own interactions gave to the user rows."""

from __future__ import annotations

import numpy as np

from fllm_export.training.closed_form import ClosedForm
from fllm_export.training.user_sums import FloatArray, UserItems, damping

_LEAST_SPREAD = 1e-9


def left_out_vectors(form: ClosedForm, by_item: UserItems, rows: FloatArray) -> FloatArray:
    """Return z_-i of every training item, with which all rows give the scores that leaving the item out would give.

    By the leave-one-out rule of :mod:`fllm_export.training.left_out`, the scores of item i without itself are
    (E z_i - H_ii y_i) / (1 - H_ii), with y_i the item's targets for its users and 0 for all others. The vector is the
    least-squares solution of E z_-i = that:

        z_-i = (z_i - H_ii (E' E)^-1 E' y_i) / (1 - H_ii)

    That a user of item i has one item less is not counted in pop_u^-c.

    Args:
        form: with a basis of fewer dimensions than users.
        by_item: the users of each training item (:meth:`UserItems.by_item`).
        rows: E, the form's rows of all users, float32 [U, d].

    Returns:
        float32 [T, d].
    """
    setting = form.setting
    hats = form.ridge.leverages(setting.penalty)[:, None]
    sizes = np.bincount(by_item.items, minlength=len(rows))
    mine = by_item.sums(rows * damping(sizes, setting.user_power)[:, None]).astype(np.float64)
    mine *= form.item_weights[:, None]
    gram = (rows.T @ rows).astype(np.float64)
    gram[np.diag_indices_from(gram)] += _LEAST_SPREAD * np.trace(gram) / len(gram)
    whole = form.item_vectors(form.ridge.items)
    found: FloatArray = ((whole - hats * np.linalg.solve(gram, mine.T).T) / (1 - hats)).astype(np.float32)
    return found
