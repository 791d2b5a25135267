"""The ONNX Runtime engine: a bundle's head graph, run on the CPU, one tile per call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.compiled import _core
from fllm_export.engines.base import Request
from fllm_export.engines.partial import Partial
from fllm_export.engines.query import Query
from fllm_export.engines.reference import perturb
from fllm_export.engines.tiled import TiledEngine
from fllm_export.errors import BundleError, HardwareError, UsageError
from fllm_export.link import EXPONENTIAL
from fllm_export.onnx_session import cpu_session
from fllm_export.table.shard import Tile
from fllm_export.table.table import Table

CHUNK_ROWS = "chunk_rows"
"""The head graph's metadata entry with the rows of a chunk: what it is fed has whole chunks."""

_INTEGERS = ("int8", "int4row", "int2", "int1")
_AS_THEY_ARE = ("fp32", "fp16", *_INTEGERS)


class OnnxRuntimeEngine(TiledEngine):
    """Runs ``head/tile.onnx`` for each tile; the tile is an input, so the table is never copied into a session.

    int8, int4row, int2 and int1 tables take the integer form, whose answers equal the NumPy engine's bit for bit. The
    others take the float form and are summed in float32, so that no answer is called exact. fp32, fp16 and int8 rows
    are read as they are, the others are decoded tile by tile.

    Args:
        table: the open table.
        head: the head graph made for the table's codec.
        threads: threads inside one call.

    Raises:
        HardwareError: ``head`` is not there.
        BundleError: it is not a head graph.
    """

    def __init__(self, table: Table, head: Path, threads: int) -> None:
        super().__init__(table)
        # Of two users whose scores are close, float32 sums may rank the lesser first.
        self.exact = table.codec.name in _INTEGERS
        if not head.is_file():
            raise HardwareError(
                f"the engine `onnxruntime` needs the head graph {head}, which is missing",
                expected="the folder `head` of a bundle",
                fix="Build the bundle again, or use the engine `numpy`",
            )
        self._session = cpu_session(head, threads)
        metadata = self._session.metadata
        if CHUNK_ROWS not in metadata:
            raise BundleError(f"{head} has no metadata entry {CHUNK_ROWS}", fix="Build the bundle again")
        self._chunk_rows = int(metadata[CHUNK_ROWS])

    def score_tile(self, tile: Tile, query: Query, request: Request) -> Partial:
        """Run the head graph on one tile."""
        if request.filter is not None:
            raise UsageError(
                "the engine `onnxruntime` cannot filter users", fix="Use the engine `native`, or filter the answer"
            )
        feed = self._tile_feed(tile) | self._query_feed(query)
        if request.mode == "sample":
            return self._sample(tile, feed, request)
        feed["k"] = np.array(min(request.k, tile.rows), np.int64)
        if self.facts.link != EXPONENTIAL:
            scores, rows, padded = self._run(["scores", "rows", "tile_scores"], feed)
            m, total = self.facts.link.log_sums(padded[:, : tile.rows])
            return Partial(tile.ids[rows], scores, scores, m, total)
        scores, rows, m, total = self._run(["scores", "rows", "m", "l"], feed)
        return Partial(tile.ids[rows], scores, scores, m.astype(np.float64), total.astype(np.float64))

    def _sample(self, tile: Tile, feed: dict[str, Any], request: Request) -> Partial:
        """Let the graph score; add the noise, normalise and select here."""
        feed["k"] = np.array(1, np.int64)
        scores = self._run(["tile_scores"], feed)[0][:, : tile.rows]
        m, total = self.facts.link.log_sums(scores)
        keys = perturb(self.facts.link.logits(scores), tile.ids, request.seeds, _core.gumbel)
        return Partial.best(keys, scores, tile.ids, request.k, m, total)

    def _run(self, outputs: list[str], feed: dict[str, Any]) -> Any:
        import onnxruntime

        options = onnxruntime.RunOptions()
        # Otherwise every call would also make the outputs that it does not ask for.
        options.only_execute_path_to_fetches = True
        return self._session.run(outputs, feed, options)

    def _tile_feed(self, tile: Tile) -> dict[str, Any]:
        codec, dim = self.table.codec, self.table.layout.dim
        if codec.name in _AS_THEY_ARE:
            codes = codec.numbers(tile.stored, dim)
        else:
            codes = codec.values(tile.stored, dim).astype(np.float32)
        feed = {
            "codes": self._whole_chunks(codes),
            "scales": self._whole_chunks(tile.stored["scales"]),
            "valid_rows": np.array(tile.rows, np.int64),
        }
        if tile.bias is not None:
            feed["bias"] = self._whole_chunks(tile.bias)
        return feed

    def _query_feed(self, query: Query) -> dict[str, Any]:
        if self.table.codec.name in _INTEGERS:
            return {"limbs": query.limbs, "query_scale": query.scale}
        return {"item_vector": (query.values * query.scale[:, None]).astype(np.float32)}

    def _whole_chunks(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Pad the rows to whole chunks; only a shard's last tile can need it, all others are passed as views."""
        missing = -len(array) % self._chunk_rows
        if not missing:
            return array
        return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
