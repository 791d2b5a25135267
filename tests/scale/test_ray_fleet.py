"""Parts of a table in actors of Ray: their answers, and what remains when they are killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import TopK, UserTable

from .ray_cluster import cluster

pytestmark = pytest.mark.slow

GENERATOR = np.random.default_rng(2)
ROWS = GENERATOR.standard_normal((4000, 64)).astype(np.float32)
Z = GENERATOR.standard_normal((3, 64)).astype(np.float32)
PARTS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = tmp_path_factory.mktemp("ray") / "t"
    UserTable.create(table, ROWS, shard_bytes=1 << 15)
    return table


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with cluster():
        yield pytest.importorskip("ray")


def same(found: TopK, expected: TopK) -> bool:
    return all(
        np.array_equal(getattr(found, name), getattr(expected, name))
        for name in ("user_ids", "scores", "coverage", "complete", "exact")
    ) and np.allclose(found.logsumexp, expected.logsumexp, rtol=1e-6)


def honest(found: TopK, expected: TopK, owners: dict[int, int]) -> bool:
    """Whether an incomplete answer says so, and is the best of the users of some of the parts."""
    if found.complete.any() or not (found.coverage < 1).all():
        return False
    present = {owners[user] for user in found.user_ids.ravel().tolist() if user >= 0}
    kept = [user for user in expected.user_ids[0].tolist() if owners[user] in present]
    return found.user_ids[0].tolist()[: len(kept)] == kept


def test_an_actor_killed_every_few_seconds(
    ray: Any, place: Path, record_property: Callable[[str, object], None]
) -> None:
    from fllm_export.scale.part_host import PartOptions
    from fllm_export.scale.ray_fleet import ActorFleet
    from fllm_export.scale.sharded_engine import ShardedOptions
    from fllm_export.scale.sharded_source import open_sharded_table

    fleet = ActorFleet.start(PartOptions(place, (0, PARTS), threads=1))
    table = open_sharded_table(place, fleet, ShardedOptions(retries=0, timeout_s=120))
    whole = UserTable.open(place, threads=1)
    owners = {
        int(user): part
        for part in range(PARTS)
        for ids, _ in UserTable.open(place, part=(part, PARTS)).decoded()
        for user in ids
    }
    assert same(table.topk(Z, 40), whole.topk(Z, 40))
    ended, killed = threading.Event(), [0]

    def kill() -> None:
        while not ended.wait(3.0):
            ray.kill(fleet.replicas[killed[0] % PARTS][0], no_restart=False)
            killed[0] += 1

    killer = threading.Thread(target=kill)
    killer.start()
    exact = incomplete = 0
    until = time.monotonic() + 120
    try:
        while time.monotonic() < until and (killed[0] < 6 or not incomplete or not exact):
            mode = "sample" if (exact + incomplete) % 2 else "topk"
            found, expected = table.topk(Z, 40, mode=mode), whole.topk(Z, 40, mode=mode)
            if found.complete.all():
                assert same(found, expected)
                exact += 1
            else:
                assert honest(found, expected, owners)
                incomplete += 1
            time.sleep(0.02)
    finally:
        ended.set()
        killer.join()
    record_property("answers", f"{killed[0]} kills, {exact} exact answers, {incomplete} marked incomplete")
    assert killed[0] >= 6
    assert exact > 10
    for _ in range(600):  # every part comes back
        if table.topk(Z, 5).complete.all():
            break
        time.sleep(0.2)
    assert same(table.topk(Z, 40), whole.topk(Z, 40))
    for actors in fleet.replicas:
        ray.kill(actors[0])
