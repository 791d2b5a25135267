"""Scores of training items as if they were cold: each without its own interactions, and without solving again.

For ridge regression the prediction without item i follows from the one with it,

    f_-i = (f_i - H_ii y_i) / (1 - H_ii),    H_ij = phi_i . M phi_j,

where y_i are the targets n_i^-r of its users (Craven and Wahba, Numerische Mathematik 31, 1979). Its users then have
one item less, so their pop^-c changes too. Landmarks stay.
"""

from __future__ import annotations

import numpy as np

from fllm_export.errors import UsageError
from fllm_export.training.closed_form import ClosedForm
from fllm_export.training.user_sums import FloatArray, Positions, UserItems, damping


class LeftOut:
    """Leave-one-out scores of a closed form.

    Args:
        form: its basis is not used: scores are those of all m dimensions.
        users: the training items of each user, the pairs that the form's counts are of.

    Raises:
        UsageError: the pairs are not those of the counts.
    """

    def __init__(self, form: ClosedForm, users: UserItems) -> None:
        counts = np.bincount(users.items, minlength=len(form.counts))
        if not np.array_equal(counts, form.counts):
            raise UsageError("the users' items do not have the form's counts", expected="the pairs of the closed form")
        self._form, self._users = form, users
        self._targets = form.item_weights
        power = form.setting.user_power
        self._damped = damping(users.sizes, power)
        self._damped_without = damping(users.sizes - 1, power)
        self._by_item = users.by_item(len(counts))

    def users_of(self, item: int) -> Positions:
        """Return the users of a training item, ascending, int64 [n]."""
        return self._by_item.part(item, item + 1).items

    def scores(self, items: Positions) -> FloatArray:
        """Return the scores of all users for some training items, each left out, float32 [n, U].

        A user whose only item is left out has the score 0, as a row of zeros gives.

        Args:
            items: positions of training items, int64 [n]; about a hundred at a time need T + U times n numbers.
        """
        form, penalty = self._form, self._form.setting.penalty
        hats = form.ridge.hats(penalty, items)
        found: FloatArray = np.ascontiguousarray(self._users.sums((hats * self._targets[:, None]).astype(np.float32)).T)
        for row, (item, hat) in enumerate(zip(items.tolist(), hats[items, np.arange(len(items))], strict=True)):
            mine = self.users_of(item)
            without = (found[row, mine] - hat * self._targets[item]) * self._damped_without[mine]
            found[row] *= self._damped
            found[row, mine] = without
            found[row] /= 1 - hat
        return found
