"""A checkpoint's rows, the items that measure, choose and judge, and ways to store rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export import Checkpoint
from fllm_export.calibration.directions import Directions, cut, transform_for
from fllm_export.calibration.feedback import Feedback
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.ranks import shared
from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.transform import Transform
from fllm_export.checkpoint.adapted import load_unmerged
from fllm_export.evaluation.cold_split import ColdSplit
from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.measurement import Method, measure
from fllm_export.files import publish
from fllm_export.table.codec_names import CodecName
from fllm_export.table.codecs import codec
from fllm_export.table.rounding import nearest

K, DEPTH = 100, 20
CHOOSING, KNOWN = 512, 2_048
_CHUNK = 1024

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Way:
    """A way to store rows.

    Attributes:
        name: what results call it.
        scores: from item vectors [B, d] to the scores of all users, biases included, float32 [B, users].
    """

    name: str
    scores: Callable[[F32], F32]


@dataclass(frozen=True)
class Facts:
    """The size of a study."""

    users: int
    dim: int
    bias: bool
    measured: int
    choosing: int
    judged: int


class Study:
    """Rows and items.

    Args:
        rows: fp32 rows [n, d].
        bias: of the rows, or None.
        dataset: the data set.
        items: positions of the items whose vectors are known, ascending.
        z: their vectors, float32 [items, d].
        calibrate: the split whose items measure and choose.
    """

    def __init__(
        self, rows: F32, bias: F32 | None, dataset: Dataset, items: I64, z: F32, calibrate: str = "train"
    ) -> None:
        self.rows, self.bias = rows, bias
        self._items, self._z = items, z
        known = np.intersect1d(items, dataset.splits[calibrate].distinct_items)
        order = np.random.default_rng(1).permutation(len(known))
        count = min(CHOOSING, len(known) // 4)
        self.choosing, measured = (self.vectors(np.sort(known[part])) for part in (order[:count], order[count:]))
        cold, judging = dataset.pairs("cold_val", "cold_test"), dataset.splits["cold_test"].distinct_items
        self.cold, self._judging = self.vectors(cold.distinct_items), np.searchsorted(cold.distinct_items, judging)
        self.moments = Moments.of([measured])
        self.directions = Directions.of(self.moments, Moments.of([rows]))
        self._splits = {name: ColdSplit.of(dataset, name) for name in ("cold_val", "cold_test")}
        self._best = {"choosing": self._top(self.choosing), "judging": self._top(self.cold[self._judging])}
        self.facts = Facts(len(rows), self.dim, bias is not None, len(measured), count, len(judging))
        digest = hashlib.sha256(f"{dataset.sha256} {asdict(self.facts)}".encode())
        digest.update(rows.tobytes() + z.tobytes() + (b"" if bias is None else bias.tobytes()))
        self.fingerprint = digest.hexdigest()

    @property
    def dim(self) -> int:
        """Dimension of the rows."""
        return int(self.rows.shape[1])

    @property
    def rank(self) -> int:
        """The most dimensions that rows can be cut to."""
        return min(self.directions.rank, self.moments.count)

    def vectors(self, items: I64) -> F32:
        """Return the vectors of some items."""
        return self._z[np.searchsorted(self._items, items)]

    def stored(self, form: RowForm) -> Way:
        """Return a form as `build` writes it."""
        transform = transform_for(form, self.dim, self.directions)
        return Way(str(form), self._lazy(form.quant, transform, by_data=form.rounding == "data"))

    def reference(self, quant: CodecName, dim: int) -> Way:
        """Return rows in the metric of the item vectors, cut by SVD, rotated and rounded to the nearest."""
        transform = cut(self.directions, dim, quant, balance=0.0)
        return Way(f"{quant} x {dim}, cut, rotated, nearest", self._lazy(quant, transform, by_data=False))

    def screen(self, way: Way) -> dict[str, float]:
        """Return the recall on the items that choose, and the standard error of its difference from that of others."""
        recalls = shared(self._best["choosing"], _best(way.scores(self.choosing)))
        margin = float(recalls.std()) * math.sqrt(1 / len(recalls) + 1 / len(self._judging))
        return {"choosing_recall": float(recalls.mean()), "margin": margin}

    def judge(self, way: Way) -> dict[str, float]:
        """Return the figures of cold items; those of `cold_val` begin with ``val_``."""
        cold = way.scores(self.cold)
        figures = {"recall": float(shared(self._best["judging"], _best(cold[self._judging])).mean())}
        for prefix, split in (("val_", self._splits["cold_val"]), ("", self._splits["cold_test"])):
            found_on = measure(Method(way.name, cold.__getitem__), split, DEPTH)
            figures |= {f"{prefix}ndcg_{name}": one.ndcg for name, one in found_on.items_of_users.items()}
            figures[f"{prefix}precision"] = found_on.users_of_items.precision
            figures[f"{prefix}recall_20"] = found_on.users_of_items.recall
        return figures

    def _lazy(self, quant: CodecName, transform: Transform | None, *, by_data: bool) -> Callable[[F32], F32]:
        """Return scores by rows that are stored when they are first needed."""
        kept: list[F32] = []

        def scores(z: F32) -> F32:
            if not kept:
                rows = self.rows if transform is None else transform.rows(self.rows)
                rule = self._feedback(transform) if by_data and transform is not None else nearest
                kept.append(codec(quant).decode(codec(quant).encode(rows, rule), rows.shape[1]))
            return self._scored(kept[0], z if transform is None else transform.item_vectors(z))

        return scores

    def _feedback(self, transform: Transform) -> Feedback:
        return Feedback(transform.items @ self.moments.metric() @ transform.items.T)

    def _scored(self, rows: F32, z: F32) -> F32:
        scores: F32 = z @ rows.T
        return scores if self.bias is None else scores + self.bias

    def _top(self, z: F32) -> I64:
        return _best(self._scored(self.rows, z))


def load_study(checkpoint: Path, dataset: Path, out: Path, states: Path | None, calibrate: str) -> Study:
    """Return the study of a checkpoint; item vectors are kept in ``out``."""
    loaded, data = Checkpoint.load(checkpoint), Dataset.load(dataset)
    users = load_unmerged(loaded).users
    known = data.splits[calibrate].distinct_items
    if states is None and len(known) > KNOWN:
        known = np.sort(np.random.default_rng(0).choice(known, KNOWN, replace=False))
    items = np.union1d(known, data.pairs("cold_val", "cold_test").distinct_items)
    kept = out / f"{checkpoint.name}-{loaded.fingerprint()[:12]}-{len(items)}.npy"
    if not kept.exists():
        z = _encoded(loaded, data, items) if states is None else _mapped(loaded, np.load(states)[items])
        with publish(kept) as file:
            np.save(file, z)
    return Study(np.concatenate(list(users.chunks())), users.bias, data, items, np.load(kept), calibrate)


def _mapped(checkpoint: Checkpoint, states: F32) -> F32:
    parts = [states[at : at + _CHUNK] for at in range(0, len(states), _CHUNK)]
    return np.concatenate([checkpoint.mapper.apply(checkpoint.features.apply(part)) for part in parts])


def _encoded(checkpoint: Checkpoint, data: Dataset, items: I64) -> F32:
    model, z = load_unmerged(checkpoint), np.empty((len(items), checkpoint.spec.dim), np.float32)
    order = sorted(range(len(items)), key=lambda at: len(data.texts[items[at]]))
    for at in range(0, len(order), _CHUNK):
        part = order[at : at + _CHUNK]
        z[part] = model.item_vectors([data.texts[items[place]] for place in part])
    return z


def _best(scores: F32) -> I64:
    return np.argpartition(scores, -K, 1)[:, -K:]
