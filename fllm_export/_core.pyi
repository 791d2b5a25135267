from typing import Any

import numpy as np
import numpy.typing as npt

class Error(RuntimeError): ...
class Filter: ...

class Table:
    @staticmethod
    def open(
        directory: str,
        *,
        threads: int = 0,
        pin_threads: bool = False,
        resident: bool = False,
        batch_window_us: int = 0,
        engine: str = "",
        gpus: int = 0,
        gpu_bytes: int = 0,
        part: int = 0,
        parts: int = 0,
    ) -> Table: ...
    def reopen(self) -> None: ...
    def describe(self) -> dict[str, Any]: ...
    def filter(self, user_ids: npt.NDArray[np.int64], deny: bool = False) -> Filter: ...
    def search(
        self,
        z: npt.NDArray[np.float32],
        k: int,
        *,
        sample: bool = False,
        seeds: npt.NDArray[np.uint64] | None = None,
        exact: bool = True,
        log_probs: int = 0,
        budget_ms: float = 0.0,
        filter: Filter | None = None,
        refine: int = 0,
        refined_scores: bool = False,
    ) -> tuple[
        npt.NDArray[np.int64],
        npt.NDArray[np.float32],
        npt.NDArray[np.float32],
        npt.NDArray[np.float64],
        npt.NDArray[np.uint64],
        npt.NDArray[np.uint8],
        npt.NDArray[np.uint8],
        npt.NDArray[np.float32],
        npt.NDArray[np.uint8],
        int,
        int,
        npt.NDArray[np.float32] | None,
    ]: ...

def cpu_levels() -> list[str]: ...
def engines() -> list[tuple[str, tuple[str, ...], bool]]: ...
def gumbel(seed: int, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]: ...

interface: int
writing: Any
