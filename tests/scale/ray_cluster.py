"""A Ray of one machine for tests that ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Ray reads it when it is imported. A cluster of one machine and one test needs no token in the home directory.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@contextmanager
def cluster(processors: int = 8) -> Iterator[None]:
    """Run Ray on this machine alone; a test is skipped where it is not installed."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.init(
        num_cpus=processors,  # places for actors, not real processors
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 << 20,
        _metrics_export_port=0,
        runtime_env={"env_vars": {"FLLM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}},
    )
    try:
        yield
    finally:
        ray.shutdown()
