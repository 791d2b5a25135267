"""A scoring job on Ray Data: actors score parts and publish them; the driver joins them."""

from __future__ import annotations

import os
import pickle
from typing import Any

import ray
import ray.data

from fllm_export.errors import UsageError
from fllm_export.progress import Progress, silent
from fllm_export.scale.score_job import PartWriter, ScoreJob


class PartActor:
    """Opens the source once per actor, and scores a part per batch.

    Args:
        writer: of the job.
    """

    def __init__(self, writer: PartWriter) -> None:
        self._work = writer.opened()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the part of a batch of one row, and return its number of items."""
        return {"items": [self._work(pickle.loads(packed)) for packed in batch["part"]]}


def score_on_ray(
    job: ScoreJob, *, workers: int | None = None, address: str | None = None, progress: Progress = silent
) -> int:
    """Run a job, or what is missing of it, on the machines of a Ray cluster.

    A part that is lost with its machine is scored again elsewhere. The result is that of
    :func:`fllm_export.scale.score_job.score_here`.

    Args:
        job: what is done. Its source and its parts are on a file system that all machines share.
        workers: actors, each with ``threads`` processors of the source; as many as fit when not given.
        address: of the cluster; when not given, that of ``RAY_ADDRESS``, or else this machine alone.
        progress: counts items.

    Returns:
        the number of items that were scored now.

    Raises:
        UsageError: no cluster can be reached at the address.
        FllmError: as the job, the source and the items raise it.
    """
    if job.finished:
        return 0
    with job.begun() as missing:
        scored = 0
        if missing:
            started = not ray.is_initialized()
            if started:
                _connect(address)
            try:
                scored = _scored(job, missing, workers, progress)
            finally:
                if started:
                    ray.shutdown()
        job.finish(progress)
    return scored


def _connect(address: str | None) -> None:
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:  # what Ray raises is not documented
        named = address or os.environ.get("RAY_ADDRESS")
        if named is None:
            raise
        raise UsageError(
            f"no Ray cluster is reached at {named!r} ({' '.join(str(error).split())[:200].rstrip('.')})",
            expected="the address of a Ray cluster that is up, or auto on one of its machines",
            fix="Start one with `ray start --head`, or omit the address to use this machine alone",
        ) from error


def _scored(job: ScoreJob, missing: list[Any], workers: int | None, progress: Progress) -> int:
    threads = job.writer.source.threads or 1
    most = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    count = min(len(missing), workers or most)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items([{"part": pickle.dumps(part)} for part in missing], override_num_blocks=len(missing))
    done = rows.map_batches(
        PartActor,
        fn_constructor_args=(job.writer,),
        batch_size=1,
        num_cpus=threads,
        compute=ray.data.ActorPoolStrategy(size=count),
    )
    scored, total = 0, sum(len(part.items) for part in missing)
    for row in done.iter_rows():
        scored += int(row["items"])
        progress("scoring", scored, total)
    return scored
