"""Other codes of a given size for the rows of a study: FAISS RaBitQ and PQ fast-scan, ScaNN AH, and LeanVec with LVQ.

A library's own scores of all rows are taken, and the biases are added in fp32, so none of them pays for an index or for
biases. Each is tried on the rows as they are and on rows along our directions, whose halves are alike in rows and item
vectors; where a code has a fixed number of bits per dimension, on as many of the directions as its size allows. LVQ is
written here by its paper: the library of its authors scores no whole table of such codes from Python.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from benchmarks.bytes_per_user.study import F32, Study, Way
from fllm_export.calibration.directions import BALANCE, SEED, rotation
from fllm_export.calibration.transform import Transform

_RABITQ_BITS = range(1, 10)
_OPQ_DIMS, _OPQ_PARTS = 256, 64
"""OPQ is learned where that takes minutes at most."""
_LVQ_LEVELS, _LVQ_CONSTANT = 15, 2


def libraries(study: Study, size: int) -> dict[str, list[Way]]:
    """Return the ways of each installed library that take at most ``size`` bytes per row."""
    found = {}
    if importlib.util.find_spec("faiss") is not None:
        found |= {"FAISS RaBitQ": _rabitq(study, size), "FAISS PQ fast-scan": _fast_scan(study, size)}
    if importlib.util.find_spec("scann") is not None:
        found["ScaNN AH"] = _scann(study, size)
    return found | {"LeanVec, LVQ": _leanvec(study, size)}


def _rabitq(study: Study, size: int) -> list[Way]:
    """RaBitQ in every number of bits, over as many directions as fit."""
    import faiss

    ways = []
    for bits in _RABITQ_BITS:
        fitting = [
            dim
            for dim in range(8, study.rank + 1, 8)
            if faiss.IndexRaBitQ(dim, faiss.METRIC_INNER_PRODUCT, bits).code_size <= size
        ]
        if not fitting:
            continue
        dim = fitting[-1]
        ways.append(_faiss(study, f"RaBitQ {bits} bits x {dim}", f"RaBitQ{bits if bits > 1 else ''}", _cut(study, dim)))
    return ways


def _fast_scan(study: Study, size: int) -> list[Way]:
    """4-bit product quantisers, of few parts also with OPQ."""
    parts = 2 * size
    ways = []
    for words, transform in (("", None), (", along the directions", _cut(study, study.rank))):
        width = study.dim if transform is None else transform.dim
        padded = -(-max(width, parts) // parts) * parts
        ways.append(_faiss(study, f"PQ{parts}x4fs{words}", f"PQ{parts}x4fs", transform, padded))
        if padded <= _OPQ_DIMS and parts <= _OPQ_PARTS:
            ways.append(_faiss(study, f"OPQ,PQ{parts}x4fs{words}", f"OPQ{parts},PQ{parts}x4fs", transform, padded))
    return ways


def _scann(study: Study, size: int) -> list[Way]:
    """Anisotropic hashing: 4 bits per block of dimensions, with and without the anisotropic loss."""
    ways = []
    for words, transform in (("", None), (", along the directions", _cut(study, study.rank))):
        width = study.dim if transform is None else transform.dim
        block = -(-width // (2 * size))
        for threshold in (0.2, float("nan")):
            loss = "" if np.isnan(threshold) else f", threshold {threshold:g}"
            ways.append(_searcher(study, f"ScaNN AH, {block} dims a block{loss}{words}", transform, block, threshold))
    return ways


def _leanvec(study: Study, size: int) -> list[Way]:
    """LVQ of 4 bits over as many directions as fit: sphered item vectors (Tepper et al., 2024), and ours, rotated."""
    dim = min(study.rank, 2 * (size - 2 * _LVQ_CONSTANT))
    sphered = study.directions.transform(dim, 0.0)
    return [_lvq(study, f"sphered x {dim}", sphered), _lvq(study, f"x {dim}, along the directions", _cut(study, dim))]


def _lvq(study: Study, words: str, transform: Transform) -> Way:
    """Locally-adaptive vector quantisation (Aguerrebere et al., 2023): a row less the mean, from its least to its most.

    The least and the most of a row are kept in float16.
    """

    def scores(z: F32) -> F32:
        rows, items = _both(study, z, transform)
        mean = rows.mean(0)
        rows = rows - mean
        least, most = (end.astype(np.float16).astype(np.float32)[:, None] for end in (rows.min(1), rows.max(1)))
        step = (most - least) / _LVQ_LEVELS
        stored = np.clip(np.rint((rows - least) / step), 0, _LVQ_LEVELS) * step + least
        found: F32 = items @ (stored + mean).T
        return found if study.bias is None else found + study.bias

    return Way(f"LVQ 4 bits {words}", scores)


def _cut(study: Study, dim: int) -> Transform:
    return study.directions.transform(dim, BALANCE).then(rotation(dim, SEED))


def _both(study: Study, z: F32, transform: Transform | None, width: int | None = None) -> tuple[F32, F32]:
    rows, items = (study.rows, z) if transform is None else (transform.rows(study.rows), transform.item_vectors(z))
    beyond = 0 if width is None else width - rows.shape[1]
    return tuple(np.ascontiguousarray(np.pad(part, ((0, 0), (0, beyond))), np.float32) for part in (rows, items))


def _faiss(study: Study, name: str, factory: str, transform: Transform | None, width: int | None = None) -> Way:
    kept: list[Any] = []

    def scores(z: F32) -> F32:
        import faiss

        rows, items = _both(study, z, transform, width)
        if not kept:
            index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
            index.train(rows)
            index.add(rows)
            kept.append(index)
        return _spread(study, *kept[0].search(items, len(rows)))

    return Way(f"FAISS {name}", scores)


def _searcher(study: Study, name: str, transform: Transform | None, block: int, threshold: float) -> Way:
    kept: list[Any] = []

    def scores(z: F32) -> F32:
        from scann import scann_ops_pybind

        rows, items = _both(study, z, transform)
        if not kept:
            builder = scann_ops_pybind.builder(rows, len(rows), "dot_product").set_n_training_threads(2)
            kept.append(builder.score_ah(block, anisotropic_quantization_threshold=threshold).build())
        found, values = kept[0].search_batched(items, len(rows))
        return _spread(study, values, found.astype(np.int64))

    return Way(name, scores)


def _spread(study: Study, values: F32, ids: Any) -> F32:
    """Return scores by row from ranked scores; a row that was not returned is last."""
    scores = np.full((len(values), len(study.rows) + 1), -np.inf, np.float32)
    np.put_along_axis(scores, np.where(ids < 0, len(study.rows), ids), values, 1)
    scores = scores[:, :-1]
    return scores if study.bias is None else scores + study.bias
