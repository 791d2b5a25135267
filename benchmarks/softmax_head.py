"""The sampled softmax head: its quality beside the full softmax, and its cost for millions of users.

    python benchmarks/softmax_head.py quality DATASET [--test]
    python benchmarks/softmax_head.py scale WORK [--users 10000000] [--dim 256] [--steps 100]

``quality`` encodes the items with ``minilm``, and takes as item vectors the leave-one-out scores of the closed form
(4,096 landmarks), projected to the 1,024 leading directions of the users. From the same vectors and the same rows of
256 dimensions it trains a head with the full softmax (Adam for everything) and several sampled ones, 4 epochs each.
It prints precision, recall and NDCG@20 on ``cold_val``, and with ``--test`` on ``cold_test`` too, and what each is as a
share of the full softmax.

``scale`` writes rows that mean nothing for as many users, 200,000 items whose popularity falls by a power law, and
50 interactions per user, to the directory WORK, and removes them at the end. It takes some steps of one epoch and
extrapolates the epoch from them. As many bytes as the steps have read are then read from the same file in order.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_export.evaluation.dataset import Dataset, Positions
from fllm_export.evaluation.metrics import Ranking
from fllm_export.progress import silent
from fllm_export.training import ClosedFormRecipe
from fllm_export.training.arithmetic import Arithmetic
from fllm_export.training.closed_form import ClosedForm, Setting
from fllm_export.training.encoders import choose_encoder
from fllm_export.training.hard_negatives import hard_negatives
from fllm_export.training.landmarks import choose_landmarks
from fllm_export.training.left_out import LeftOut
from fllm_export.training.material import Material
from fllm_export.training.sampled_head import SampledHead, SampledSettings
from fllm_export.training.user_store import UserStore

EPOCHS, LANDMARKS, WIDTH, DIM = 4, 4096, 1024, 256
SCALE, DROPOUT, MIX = 0.4, 0.2, 0.5
ITEMS, PER_USER, SEARCHED = 200_000, 50, 512
ROWS_AT_ONCE = 65_536
_FIRST = SampledSettings(scale=SCALE, sampled=512, row_rate=2e-3, bias_rate=3e-3)
SAMPLED = {
    "sampled, 512 drawn": _FIRST,
    "sampled, 512 drawn, 20 hard negatives": replace(_FIRST, hard=20),
    "sampled, 256 drawn, batches of 64": replace(_FIRST, sampled=256, batch=64, item_rate=1.5e-4),
}


class Problem(NamedTuple):
    """Frozen vectors and rows, and the cold items of each split with their users."""

    z: Tensor
    rows: Tensor
    liked: list[Positions]
    cold: dict[str, tuple[Tensor, list[Positions]]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    quality = commands.add_parser("quality")
    quality.add_argument("dataset", type=Path)
    quality.add_argument("--test", action="store_true")
    scale = commands.add_parser("scale")
    scale.add_argument("work", type=Path)
    scale.add_argument("--users", type=int, default=10_000_000)
    scale.add_argument("--dim", type=int, default=256)
    scale.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    if options.command == "quality":
        compare(options)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        measure(Path(folder), options)


def compare(options: argparse.Namespace) -> None:
    """Train with the full softmax and with the sampled one."""
    problem = closed_form(Dataset.load(options.dataset), ["cold_val", "cold_test"] if options.test else ["cold_val"])
    ranked("closed form, 1,024 dimensions", problem, lambda z: z @ problem.rows.T)
    full = full_softmax(problem)
    reference = ranked("full softmax", problem, full)
    for name, settings in SAMPLED.items():
        began = time.monotonic()
        found = ranked(name, problem, sampled_softmax(problem, settings))
        shares = {f"{split} {m}": round(v / reference[split][m], 4) for split in found for m, v in found[split].items()}
        record(name, of_the_full_softmax=shares, train_s=since(began))


def sampled_softmax(problem: Problem, settings: SampledSettings) -> Callable[[Tensor], Tensor]:
    """Train over sampled users; return the scores of item vectors."""
    rows = problem.rows[:, :DIM].contiguous().numpy()
    with tempfile.TemporaryDirectory() as folder:
        store = UserStore.create(Path(folder) / "store", [rows], len(rows), DIM)
        head = SampledHead(store, problem.z.numpy(), problem.liked, problem.rows.numpy().__getitem__, settings)
        head.run(EPOCHS)
        taught, bias = store.gather(np.arange(store.users))
    return lambda z: torch.from_numpy(head.queries(z.numpy())) @ taught.T + bias


def closed_form(dataset: Dataset, splits: Sequence[str]) -> Problem:
    """Return what both heads begin with."""
    recipe = ClosedFormRecipe(max_length=256)
    with tempfile.TemporaryDirectory() as folder, Arithmetic.of(recipe.precision) as arithmetic:
        material = Material(dataset, choose_encoder("minilm", Path(folder)), recipe, arithmetic, silent)
        vectors = material.states("encoding")["items"].numpy()
        cold = {split: dataset.splits[split].distinct_items for split in splits}
        states = {s: material.tokens.encode(material.encoder, items, s, silent).numpy() for s, items in cold.items()}
    form = ClosedForm.fit(vectors, choose_landmarks(vectors, LANDMARKS), np.bincount(material.users.items), Setting())
    left_out, places = LeftOut(form, material.users), np.arange(len(vectors))
    scores = torch.from_numpy(
        np.concatenate([left_out.scores(places[f : f + 256]) for f in range(0, len(places), 256)])
    )
    spread = scores.std()
    scores /= spread
    unit = scores / scores.norm(dim=1, keepdim=True)
    directions = torch.linalg.eigh((unit.T @ unit).double())[1].flip(1)[:, :WIDTH].float().contiguous()
    rows = torch.from_numpy(form.rows(material.users)) / spread
    for_cold = {
        split: (
            torch.from_numpy(form.item_vectors(x).astype(np.float32)) @ (rows.T @ directions),
            dataset.splits[split].users_of(cold[split]),
        )
        for split, x in states.items()
    }
    return Problem(scores @ directions, directions, material.liked, for_cold)


def full_softmax(problem: Problem) -> Callable[[Tensor], Tensor]:
    """Train with logits of all users and Adam for everything; return the scores of item vectors."""
    torch.manual_seed(0)
    settings = SampledSettings()
    q = torch.eye(WIDTH)[:DIM].clone().requires_grad_()
    rows, bias = problem.rows[:, :DIM].clone().requires_grad_(), torch.zeros(len(problem.rows), requires_grad=True)
    log_scale = torch.tensor(SCALE).log().requires_grad_()
    groups = [([q, rows], settings.item_rate), ([bias], 5 * settings.item_rate), ([log_scale], settings.scale_rate)]
    adam = torch.optim.Adam([{"params": params, "lr": rate} for params, rate in groups])
    began = time.monotonic()
    for _ in range(EPOCHS):
        for items in torch.randperm(len(problem.z)).split(settings.batch):
            z = problem.z[items]
            target = torch.softmax(z @ problem.rows.T, 1) * (1 - MIX)
            for place, item in enumerate(items.tolist()):
                target[place, torch.from_numpy(problem.liked[item])] += MIX / len(problem.liked[item])
            scores = F.dropout(z @ q.T, DROPOUT) @ rows.T * log_scale.exp() + bias
            adam.zero_grad()
            torch.autograd.backward(-(torch.log_softmax(scores, 1) * target).sum(1).mean())
            adam.step()
    record("full softmax", train_s=round(time.monotonic() - began, 1))
    return lambda z: (z @ q.T @ rows.T * log_scale.exp() + bias).detach()


def ranked(name: str, problem: Problem, scores: Callable[[Tensor], Tensor]) -> dict[str, dict[str, float]]:
    """Print and return how a head ranks the users of cold items."""
    found = {}
    for split, (z, truth) in problem.cold.items():
        ranking = Ranking.of(scores(z).topk(20, dim=1).indices.numpy(), truth)
        found[split] = {"precision": ranking.precision, "recall": ranking.recall, "ndcg": ranking.ndcg}
        record(name, split=split, **{metric: round(value, 4) for metric, value in found[split].items()})
    return found


class ItemUsers(Sequence[Positions]):
    """The users of each item in a file, int32, grouped by item."""

    def __init__(self, path: Path, starts: Positions) -> None:
        self._users, self._starts = np.memmap(path, np.int32, "r"), starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, item: Any) -> Any:
        return self._users[self._starts[item] : self._starts[item + 1]].astype(np.int64)


def write_pairs(path: Path, users: int) -> ItemUsers:
    """Write about 50 interactions per user; item i has a share like (i + 1)^-0.8, in no order."""
    generator = np.random.default_rng(1)
    odds = np.arange(1, ITEMS + 1) ** -0.8
    counts = generator.permutation(np.maximum(1, users * PER_USER * odds / odds.sum())).astype(np.int64)
    starts = [0]
    with path.open("wb") as file:
        for count in counts:
            # A pair that is drawn twice counts once.
            drawn = np.sort(generator.integers(0, users, count, np.int32))
            liked = drawn[np.diff(drawn, prepend=-1) != 0]
            file.write(liked.data)
            starts.append(starts[-1] + len(liked))
    return ItemUsers(path, np.array(starts))


def write_rows(users: int, dim: int, teacher: Path) -> Iterator[np.ndarray]:
    """Yield rows for the store, the same block over and over, and write them as float16 for the teacher."""
    block = np.random.default_rng(2).standard_normal((ROWS_AT_ONCE, dim), np.float32) / np.float32(dim**0.5)
    short = block.astype(np.float16)
    with teacher.open("wb") as file:
        for first in range(0, users, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, users - first)
            file.write(short[:count].data)
            yield block[:count]


def measure(work: Path, options: argparse.Namespace) -> None:
    """Take some steps, search some hard negatives, and read as many bytes."""
    users, dim, settings = options.users, options.dim, SampledSettings()
    liked = write_pairs(work / "pairs", users)
    store = UserStore.create(work / "store", write_rows(users, dim, work / "teacher"), users, dim)
    teacher = np.memmap(work / "teacher", np.float16, "r", shape=(users, dim))
    z = np.random.default_rng(3).standard_normal((ITEMS, dim), np.float32)
    head = SampledHead(store, z, liked, lambda some: teacher[some], settings)
    began = time.monotonic()
    store.begin()
    folder = store.directory / "epoch-0001"
    size = sum(path.stat().st_size for path in folder.iterdir())
    record("begin the epoch: copy", wall_s=since(began), bytes_per_user=size / users, teacher_bytes_per_user=2 * dim)
    moved = []
    step = store.step
    store.step = lambda some, *rest: (moved.append(len(some)), step(some, *rest))[1]  # type: ignore[method-assign]
    began = time.monotonic()
    loss = head.epoch(steps=options.steps)
    seconds = time.monotonic() - began
    record(
        "steps",
        steps=options.steps,
        loss=round(loss, 3),
        wall_s=round(seconds, 1),
        items_per_s=round(options.steps * settings.batch / seconds),
        rows_updated_per_s=round(sum(moved) / seconds),
        rows_per_step=round(np.mean(moved)),
        epoch_s_extrapolated=round(seconds * head.steps_per_epoch / options.steps),
        **memory(),
    )
    read(folder / "rows", sum(moved) * 4 * dim)
    began = time.monotonic()
    some = np.arange(SEARCHED)
    hard_negatives(store, head.queries(z[some]), [liked[item] for item in some], 20, work)
    record("hard negatives: table and search", items=SEARCHED, wall_s=since(began), **memory())
    began = time.monotonic()
    store.commit({})
    record("commit the epoch", wall_s=since(began), **memory())


def read(path: Path, count: int) -> None:
    """Read so many bytes of a file in order, from its beginning again where it is shorter."""
    began, buffer, done = time.monotonic(), bytearray(64 << 20), 0
    with path.open("rb", buffering=0) as file:
        while done < count:
            got = file.readinto(buffer)
            done += got
            if not got:
                file.seek(0)
    record("plain read of the rows' bytes", bytes=count, wall_s=since(began))


def memory() -> dict[str, int]:
    """Return the peak RSS, and what of the present one is not mapped files, in bytes."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    found = {line[0]: 1024 * int(line[1]) for line in lines if line[0] in ("VmHWM:", "RssAnon:")}
    return {"peak_rss_bytes": found["VmHWM:"], "rss_without_files_bytes": found["RssAnon:"]}


def since(began: float) -> float:
    """Return seconds."""
    return round(time.monotonic() - began, 1)


def record(case: str, **values: Any) -> None:
    """Print a measurement as a JSON line."""
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"benchmark": "softmax head", "case": case, **values, "load": load}), flush=True)


if __name__ == "__main__":
    main()
