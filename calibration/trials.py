"""Measuring ways to store rows: how much of the fp32 ranking of some texts each of them keeps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fllm_export.calibration.directions import Directions, transform_for
from fllm_export.calibration.feedback import Feedback
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.ranks import Ids, best_rows, shared
from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.transform import Transform
from fllm_export.calibration.user_sample import UserSample
from fllm_export.table.codecs import codec
from fllm_export.table.rounding import nearest

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_ROWS_AT_ONCE = 8192


class Trials:
    """A sample of users, and what is needed to store its rows as a build would.

    Args:
        sample: rows, and the best of them for each text.
        z: item vectors of the texts of the sample, in its order, float32 [texts, d].
        items: moments of other item vectors; read only by forms that pass the directions.
        directions: of the rows by those moments, or None where no form passes them.
    """

    def __init__(self, sample: UserSample, z: F32, items: Moments | None, directions: Directions | None) -> None:
        self.sample = sample
        self._z = z
        self._metric = None if items is None else items.metric()
        self._directions = directions

    def recalls(self, form: RowForm, texts: slice) -> F64:
        """Store the rows in a form, and return the recall@k of each of some texts, float64 [texts].

        Item vectors stay in float32: engines quantise them to 14 bits, which costs nothing that can be measured.
        """
        transform = transform_for(form, self.sample.rows.shape[1], self._directions)
        z, best = self._z[texts], self.sample.best[texts]
        if transform is not None:
            z = transform.item_vectors(z)
        found: Ids = best_rows(z, self._stored(form, transform), best.shape[1])[0]
        return shared(best, found)

    def _stored(self, form: RowForm, transform: Transform | None) -> Iterator[tuple[F32, F32 | None]]:
        kind, rounding = codec(form.quant), nearest
        if form.rounding == "data":
            if transform is None or self._metric is None:
                raise AssertionError("rounding by data needs moments and a transform")
            rounding = Feedback(transform.items @ self._metric @ transform.items.T)
        rows, bias = self.sample.rows, self.sample.bias
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[first : first + _ROWS_AT_ONCE]
            if transform is not None:
                part = transform.rows(part)
            decoded = kind.decode(kind.encode(part, rounding), form.dim)
            yield decoded, None if bias is None else bias[first : first + _ROWS_AT_ONCE]
